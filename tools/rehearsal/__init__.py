"""The cluster of `cluster/kuberay/` in small, on one computer: `make cluster-rehearsal`."""

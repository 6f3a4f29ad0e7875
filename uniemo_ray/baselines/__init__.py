"""Published methods that UniEmo is compared with, on the same data, splits and metrics."""

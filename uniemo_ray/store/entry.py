"""The manifest entry of a shard."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ShardEntry:
    """A manifest entry, `manifest/NAME.json`: the shard is committed."""

    name: str
    """Stable name without ending, such as `images-00042`."""
    rows: int
    bytes: int
    sha256: str
    schema: dict[str, str]
    """Column name -> pyarrow type."""
    plan_hash: str
    """What the shard was made for; a shard of another plan is never taken for it."""
    versions: dict[str, str]
    seconds: float
    """Time it took to make the rows."""
    attempt: int = 1
    """How often its making had begun under its driver, this time included."""
    epoch: int = 0
    """Number of the lease under which it was listed; 0 outside of a run."""
    failed: dict[str, int] = field(default_factory=dict)
    """Rows without a result, by reason."""

    @property
    def key(self) -> str:
        """Where the data lies in the store."""
        return f"{self.name}.parquet"

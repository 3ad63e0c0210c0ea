"""What the installing process tells: one line of JSON each."""

from __future__ import annotations

from dataclasses import dataclass, field

KINDS = ("progress", "finished", "failed", "cancelled")


@dataclass(frozen=True)
class Report:
    """How an installation is: its kind is one of KINDS, and after all but the first nothing follows."""

    kind: str
    progress: float = 0.0
    message: str = ""
    remedy: str = ""
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def is_last(self) -> bool:
        """Whether nothing more will be told."""
        return self.kind != "progress"

    def to_wire(self) -> dict[str, object]:
        """Return the report as what JSON can say."""
        return dict(vars(self))

    @classmethod
    def from_wire(cls, message: object) -> Report | None:
        """Return the report of a message, None where it isn't one."""
        if not isinstance(message, dict) or message.get("kind") not in KINDS:
            return None
        progress, versions = message.get("progress"), message.get("versions")
        return cls(
            message["kind"],
            float(progress) if isinstance(progress, (int, float)) and 0 <= progress <= 1 else 0.0,
            str(message.get("message") or ""),
            str(message.get("remedy") or ""),
            {str(name): str(value) for name, value in versions.items()} if isinstance(versions, dict) else {},
        )

"""The one error tree, shared by the platform that raises and the SDK that re-raises.

    RunToolsError                      500 internal
    ├── InvalidRequest                 400 invalid_request
    │   ├── InvalidPath                400 invalid_path
    │   ├── ProjectInvalid             400 project_invalid
    │   └── OffScreen                  400 off_screen
    ├── Unauthenticated                401 unauthenticated
    │   └── SignatureInvalid           401 signature_invalid
    ├── Forbidden                      403 forbidden
    ├── NotFound                       404 not_found
    ├── Conflict                       409 conflict
    │   ├── NameTaken                  409 name_taken
    │   ├── IllegalMove                409 illegal_move
    │   ├── SandboxStopped             409 sandbox_stopped
    │   ├── SandboxPaused              409 sandbox_paused
    │   ├── TemplateInUse              409 template_in_use
    │   ├── SnapshotInUse              409 snapshot_in_use
    │   ├── SnapshotUnfit              409 snapshot_unfit
    │   ├── IsolationUnavailable       409 isolation_unavailable
    │   ├── ProjectInUse               409 project_in_use
    │   ├── QuotaExceeded              409 quota_exceeded
    │   ├── IdempotencyMismatch        409 idempotency_mismatch
    │   ├── OutcomeUnknown             409 outcome_unknown
    │   ├── DeployRunning              409 deploy_running
    │   ├── DeployCancelled            409 deploy_cancelled
    │   ├── PlanStale                  409 plan_stale
    │   ├── LossUnconfirmed            409 loss_unconfirmed
    │   ├── ToolsUnavailable           409 tools_unavailable
    │   ├── RunEnded                   409 run_ended
    │   ├── RunIllegalMove             409 run_illegal_move
    │   ├── AlreadyDecided             409 already_decided
    │   ├── ProcessEnded               409 process_ended
    │   ├── InputClosed                409 input_closed
    │   ├── InputFull                  409 input_full
    │   ├── HistoryChanged             409 history_changed
    │   ├── EditUnfit                  409 edit_unfit
    │   └── NoDesktop                  409 no_desktop
    ├── TooLarge                       413 too_large
    ├── VersionMismatch                426 version_mismatch
    ├── RateLimited                    429 rate_limited
    ├── CapacityExhausted              503 capacity_exhausted
    │   └── WaitsForRoom               503 waits_for_room
    ├── Unavailable                    503 unavailable
    │   ├── HostUnavailable            503 host_unavailable
    │   ├── PortClosed                 503 port_closed
    │   ├── DesktopUnavailable         503 desktop_unavailable
    │   └── WrongMasterKey             503 wrong_master_key
    ├── GuestUnreachable               502 guest_unreachable
    │   └── GuestMisbehaved            502 guest_misbehaved
    ├── DeadlineExceeded               504 deadline_exceeded
    ├── BuildFailed                    422 build_failed
    ├── SetupFailed                    422 setup_failed
    ├── SecretUnfit                    422 secret_unfit
    ├── RunAbandoned                   500 run_abandoned
    ├── RunFailed                      422 run_failed
    └── FileError                      400 file_error
        ├── FileMissing                404 file_missing
        ├── FileAlreadyExists          409 file_exists
        ├── FileForbidden              403 file_forbidden
        ├── FileIsDirectory            409 file_is_directory
        ├── FileNotDirectory           409 file_not_directory
        └── DiskFull                   507 disk_full

Each says what happened, to what, and (``hint``) what to do next. ``code`` is stable and travels on
the wire; `from_wire` turns it back into the class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar


class RunToolsError(Exception):
    """Anything the platform refuses or fails to do.

    Attributes:
        code: stable machine-readable name.
        status: the HTTP status it is answered with.
        message: what happened, to what.
        hint: what to do next, or None.
        details: further JSON-serialisable facts.
        request_id: the request that failed, where known.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        details: Mapping[str, Any] | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details: dict[str, Any] = dict(details or {})
        self.request_id = request_id

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def to_wire(self) -> dict[str, Any]:
        """The body of an error response, without its envelope."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "details": self.details,
            "requestId": self.request_id,
        }


class InvalidRequest(RunToolsError):
    """A field is missing, malformed or out of range; ``details["fields"]`` says which."""

    code = "invalid_request"
    status = 400


class InvalidPath(InvalidRequest):
    """A path is relative, holds NUL or ``..``, or is too long."""

    code = "invalid_path"


class ProjectInvalid(InvalidRequest):
    """A project's files cannot be loaded as they are; ``details["problems"]`` says where and why."""

    code = "project_invalid"


class OffScreen(InvalidRequest):
    """A place is not on the desktop's screen; ``details`` has both."""

    code = "off_screen"


class Unauthenticated(RunToolsError):
    """No key, or a key that is unknown, expired or revoked."""

    code = "unauthenticated"
    status = 401


class SignatureInvalid(Unauthenticated):
    """A webhook is not signed as it should be, or is an old one."""

    code = "signature_invalid"


class Forbidden(RunToolsError):
    """The key is good but may not do this."""

    code = "forbidden"
    status = 403


class NotFound(RunToolsError):
    """Nothing of that id or name that the caller may see."""

    code = "not_found"
    status = 404


class Conflict(RunToolsError):
    """The request does not fit the present state."""

    code = "conflict"
    status = 409


class NameTaken(Conflict):
    """A living sandbox of the org already bears the name."""

    code = "name_taken"


class IllegalMove(Conflict):
    """The act is not legal from the sandbox's present state."""

    code = "illegal_move"


class SandboxStopped(Conflict):
    """The sandbox has ended; the ledger says why."""

    code = "sandbox_stopped"


class SandboxPaused(Conflict):
    """The sandbox was paused while something was under way in it; ``details`` say when, why and by whom.

    Nothing of it is lost: what is asked for again wakes the sandbox, and a command goes on in it. Or it was
    paused before it could say how its processes stand, which to look, and to wait, wakes nobody for.
    """

    code = "sandbox_paused"


class TemplateInUse(Conflict):
    """Sandboxes or snapshots still stand on the template version."""

    code = "template_in_use"


class SnapshotInUse(Conflict):
    """A fork or rollback under way needs the snapshot."""

    code = "snapshot_in_use"


class SnapshotUnfit(Conflict):
    """A saved state no longer fits kernel, VMM, CPU model or size; ``details`` names which."""

    code = "snapshot_unfit"


class IsolationUnavailable(Conflict):
    """Hardware isolation was required where only emulation is to be had."""

    code = "isolation_unavailable"


class ProjectInUse(Conflict):
    """A project is not empty; ``details`` counts what lies in it."""

    code = "project_in_use"


class QuotaExceeded(Conflict):
    """The org has all it may have; ``details`` names the limit, what is used and what was asked."""

    code = "quota_exceeded"


class IdempotencyMismatch(Conflict):
    """The idempotency key was used before for another request."""

    code = "idempotency_mismatch"


class OutcomeUnknown(Conflict):
    """The act was begun before a crash and nobody can say whether it was done."""

    code = "outcome_unknown"


class DeployRunning(Conflict):
    """A deploy is under way in the project: nothing else changes what stands there meanwhile."""

    code = "deploy_running"


class DeployCancelled(Conflict):
    """Somebody has cancelled the deploy: what was done before stays done."""

    code = "deploy_cancelled"


class PlanStale(Conflict):
    """What stands in the project has changed since the plan was shown: nothing was done."""

    code = "plan_stale"


class LossUnconfirmed(Conflict):
    """The plan would lose a sandbox's data, and nobody has confirmed that; ``details`` names them."""

    code = "loss_unconfirmed"


class ToolsUnavailable(Conflict):
    """The tool is deployed, but the platform has no tools service that could run it."""

    code = "tools_unavailable"


class RunAbandoned(RunToolsError):
    """The run was taken over by one worker after the other, and came no further."""

    code = "run_abandoned"


class RunEnded(Conflict):
    """The run has ended: nothing is asked of it any more. Its thread goes on with another run."""

    code = "run_ended"


class RunIllegalMove(Conflict):
    """That is not legal from how the run stands."""

    code = "run_illegal_move"


class AlreadyDecided(Conflict):
    """A person has decided otherwise on the call before; ``details`` have what, and who."""

    code = "already_decided"


class ProcessEnded(Conflict):
    """The process has ended, or was ended before it had begun: nothing can be sent to it any more."""

    code = "process_ended"


class InputClosed(Conflict):
    """The process takes no input: its stdin was closed, or never was open."""

    code = "input_closed"


class InputFull(Conflict):
    """The process does not read what it was sent: none of these bytes was taken. Try again later."""

    code = "input_full"


class EditUnfit(Conflict):
    """The text that was to be replaced does not stand in the file as often as was said.

    ``details`` say how often (``count``) and in which ``lines`` it does. Nothing was changed.
    """

    code = "edit_unfit"


class HistoryChanged(Conflict):
    """The sandbox went back to a snapshot: an offset from before means nothing in what is written now.

    ``details["history"]`` names the history that goes on.
    """

    code = "history_changed"


class NoDesktop(Conflict):
    """The sandbox's template has no desktop."""

    code = "no_desktop"


class TooLarge(RunToolsError):
    """The request or what it names exceeds a stated bound."""

    code = "too_large"
    status = 413


class VersionMismatch(RunToolsError):
    """SDK and platform do not understand each other: one of them is too old, or it is no platform."""

    code = "version_mismatch"
    status = 426


class RateLimited(RunToolsError):
    """Too many requests; ``details["retryAfterSeconds"]`` says when to come back."""

    code = "rate_limited"
    status = 429


class CapacityExhausted(RunToolsError):
    """No room on any host: says what was asked, what is free and what to do."""

    code = "capacity_exhausted"
    status = 503


class WaitsForRoom(CapacityExhausted):
    """The sandbox waits for room on its host and goes on by itself; ``details`` give its place."""

    code = "waits_for_room"


class Unavailable(RunToolsError):
    """A part of the platform cannot answer at the moment."""

    code = "unavailable"
    status = 503


class HostUnavailable(Unavailable):
    """The host that runs the sandbox does not answer."""

    code = "host_unavailable"


class PortClosed(Unavailable):
    """Nothing listens on that port of a sandbox; ``details["ports"]`` are those on which something does."""

    code = "port_closed"


class DesktopUnavailable(Unavailable):
    """No desktop answers in the sandbox at the moment: it is on its way up, or has ended."""

    code = "desktop_unavailable"


class WrongMasterKey(Unavailable):
    """The master key at hand is not the one that a value was sealed with."""

    code = "wrong_master_key"


class GuestUnreachable(RunToolsError):
    """The agent inside the sandbox does not answer."""

    code = "guest_unreachable"
    status = 502


class GuestMisbehaved(GuestUnreachable):
    """The agent inside answered outside its protocol or its bounds."""

    code = "guest_misbehaved"


class DeadlineExceeded(RunToolsError):
    """The act did not finish in its time."""

    code = "deadline_exceeded"
    status = 504


class BuildFailed(RunToolsError):
    """A template build failed; its log says where."""

    code = "build_failed"
    status = 422


class SetupFailed(RunToolsError):
    """A `setup` command of a standing sandbox failed; ``details`` names it, with its last output."""

    code = "setup_failed"
    status = 422


class SecretUnfit(RunToolsError):
    """A secret that is to be sent in a header holds what none may; no message has its value."""

    code = "secret_unfit"
    status = 422


class RunFailed(RunToolsError):
    """A run of an agent has failed; its log says where. Raised by the SDK, where one is waited for."""

    code = "run_failed"
    status = 422


class FileError(RunToolsError):
    """A file operation inside a sandbox failed."""

    code = "file_error"
    status = 400


class FileMissing(FileError):
    """No such file or directory."""

    code = "file_missing"
    status = 404


class FileAlreadyExists(FileError):
    """The target exists."""

    code = "file_exists"
    status = 409


class FileForbidden(FileError):
    """The file's mode or mount forbids it."""

    code = "file_forbidden"
    status = 403


class FileIsDirectory(FileError):
    """A file was wanted and a directory is there (or a directory that is not empty)."""

    code = "file_is_directory"
    status = 409


class FileNotDirectory(FileError):
    """A directory was wanted and something else is there."""

    code = "file_not_directory"
    status = 409


class DiskFull(FileError):
    """The sandbox's disk has no room left."""

    code = "disk_full"
    status = 507


def _tree(root: type[RunToolsError]) -> Iterator[type[RunToolsError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


BY_CODE: Mapping[str, type[RunToolsError]] = {kind.code: kind for kind in _tree(RunToolsError)}


def from_wire(body: Mapping[str, Any]) -> RunToolsError:
    """The error that a response body (what `to_wire` made) stands for; unknown codes keep the base."""
    kind = BY_CODE.get(str(body.get("code")), RunToolsError)
    return kind(
        str(body.get("message", "unknown error")),
        hint=body.get("hint"),
        details=body.get("details"),
        request_id=body.get("requestId"),
    )

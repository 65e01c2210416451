"""Every error the daemon raises on purpose, typed by who must act."""

from collections.abc import Sequence


class ConfigError(Exception):
    """The administrator must correct the configuration; carries every problem found, not the first.

    Each can be printed: an environment may hold bytes that are no text.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problem.encode("utf-8", "backslashreplace").decode() for problem in problems)
        super().__init__("\n".join(self.problems))


class CannotStart(Exception):  # noqa: N818 -- said as a sentence where it is raised
    """The operator must free what a role needs (a port, a folder, a database at the right schema)."""


class NoSuchJob(Exception):  # noqa: N818 -- likewise
    """The operator named a job number that is not in the table."""

    def __init__(self, job_id: int) -> None:
        self.job_id = job_id
        super().__init__(f"there is no job {job_id}; `oarlock jobs` lists them")


class IllegalTransition(Exception):  # noqa: N818 -- likewise
    """A job was asked to move to a state that does not follow its own; says both and what is possible."""


class StaleJob(Exception):  # noqa: N818 -- likewise
    """The job moved on while its caller still held it: the lease ran out or an operator cancelled it.

    Nobody has to act: whoever works on the job drops its result.
    """


class InstanceConflict(Exception):  # noqa: N818 -- likewise
    """The sender gave one SOP Instance UID to two contents; what came first stays."""


class StorageFull(Exception):  # noqa: N818 -- likewise
    """The operator must make room: the spool's file system is below its watermark or refused a write."""


class ImagesUnread(Exception):  # noqa: N818 -- likewise
    """The operator must look after the disk: images that were stored are gone, or cannot be read now.

    That says nothing about whether they are suitable.
    """

    def __init__(self, error: OSError) -> None:
        self.are_gone = isinstance(error, FileNotFoundError)
        where = f"{error.filename}: " if error.filename else "an image: "
        super().__init__(f"{where}{error.strerror}")


class OutputRejected(Exception):  # noqa: N818 -- likewise
    """The programmer must look: a structure set did not survive its own check and must not be sent."""

    def __init__(self, findings: Sequence[str]) -> None:
        self.findings = tuple(findings)
        super().__init__("; ".join(self.findings))

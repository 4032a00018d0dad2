"""What was found out before a run: references and parameters of every task of a plan."""

from dataclasses import dataclass, field

from ..environment import CrdsEnvironment

__all__ = ["Resolution"]


@dataclass(frozen=True)
class Resolution:
    """Which references and parameters the tasks of a plan would use now.

    Attributes
    ----------
    context : str
        Name of the CRDS context.
    environment : CrdsEnvironment
        For the processes that do the work: the context by name, and no server.
    references : dict
        By task: ``{type: {"name", "path", "sha1", "bytes", "present"}}``; the name is ``'N/A'``
        where CRDS says that there is none to be.  Also by configuration: what all its tasks use.
    parameter_references : dict
        The same for the files that parameters come from (``pars-...``).
    parameters : dict
        By task: the effective parameters ``{step: {parameter: value}}``.
    base : dict
        By task: the parameters that would hold if nothing had been asked.
    crds : dict
        By task: the parameters that CRDS gives.
    mappings : tuple of str
        The mappings that decided.
    missing : tuple of str
        Names of references that are not in the cache, or damaged there.
    """

    context: str
    environment: CrdsEnvironment
    references: dict = field(default_factory=dict)
    parameter_references: dict = field(default_factory=dict)
    parameters: dict = field(default_factory=dict)
    base: dict = field(default_factory=dict)
    crds: dict = field(default_factory=dict)
    mappings: tuple = ()
    missing: tuple = ()

    def files(self):
        """Return every reference file once.

        Returns
        -------
        dict of str to dict
            By name: ``path``, ``sha1``, ``bytes``, ``present``, ``types`` (set) and ``tasks``
            (list).
        """
        found = {}
        for source in (self.references, self.parameter_references):
            for task, by_type in source.items():
                if task not in self.parameters:
                    continue
                for reftype, entry in by_type.items():
                    if entry["name"] == "N/A":
                        continue
                    file = found.setdefault(entry["name"], {**entry, "types": set(), "tasks": []})
                    file["types"].add(reftype)
                    if task not in file["tasks"]:
                        file["tasks"].append(task)
        return found

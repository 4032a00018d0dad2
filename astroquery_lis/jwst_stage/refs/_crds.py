"""What has to be asked of `jwst`, `stpipe` and `crds`, in a process of its own.

CRDS reads its environment once, keeps what it found for ever and ends the process where it has no
cache; `Child` starts this module in a process, sends it one JSON object a line and gets one back.
The functions below `Child` run there.
"""

import json
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from importlib.util import find_spec

from ...exceptions import CrdsUnavailable, OptionalDependencyError, StageError

__all__ = ["Child", "main", "require_jwst"]

_SHOWN_LINES = 5


def require_jwst():
    """Refuse to go on where the pipeline is not installed.

    Raises
    ------
    OptionalDependencyError
    """
    if find_spec("jwst") is None:
        msg = (
            "The JWST chain needs the package 'jwst', which is not installed; "
            "install the extra: pip install 'astroquery_lis[jwst]'."
        )
        raise OptionalDependencyError(msg)


class Child:
    """A process that has imported the pipeline; a context manager that ends it.

    Parameters
    ----------
    variables : dict of str to (str or None), optional
        Environment variables to set, or with `None` to remove.
    """

    def __init__(self, variables=None):
        require_jwst()
        environment = dict(os.environ)
        # The processes that do the work go without it too: what CRDS says of parameters counts.
        environment.pop("STPIPE_DISABLE_CRDS_STEPPARS", None)
        for name, value in (variables or {}).items():
            environment.pop(name, None)
            if value is not None:
                environment[name] = value
        # The directory that the package is in, for an interpreter that was started elsewhere.
        search = [path for path in sys.path if path and os.path.isdir(path)]
        environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(search))
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=environment,
        )

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    def ask(self, do, **arguments):
        """Let the process do something.

        Parameters
        ----------
        do : str
            A name of `COMMANDS`.
        **arguments
            Of the command; JSON types.

        Returns
        -------
        object
            What the command returned, JSON types.

        Raises
        ------
        CrdsUnavailable
            If CRDS refused, or ended the process.
        StageError
            If anything else went wrong there.
        """
        line = json.dumps({"do": do, "with": arguments}) + "\n"
        answer = b""
        # A process that has died is found out by its missing answer.
        with suppress(BrokenPipeError):
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        if not answer:
            code = self._process.wait()
            msg = f"The process that asks CRDS ended with exit code {code}: {self._last_words()}"
            raise StageError(msg)
        answer = json.loads(answer)
        if "result" in answer:
            return answer["result"]
        said = f"{answer['error']}: {answer['message']}".strip().rstrip(".")
        if {"SystemExit", "CrdsError"} & set(answer["kinds"]):
            if answer["error"] == "SystemExit":
                said = self._last_words().rstrip(".")
            msg = f"CRDS could not go on: {said}."
            raise CrdsUnavailable(msg)
        msg = f"The process that asks CRDS failed: {said}."
        raise StageError(msg)

    def _last_words(self):
        self._said.seek(0)
        lines = self._said.read().decode("utf-8", "replace").strip().splitlines()
        return " / ".join(line.strip() for line in lines[-_SHOWN_LINES:]) or "no message"

    def close(self):
        """End the process."""
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
        self._said.close()


def _plain(value):
    """Return a parameter as JSON types."""
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if hasattr(value, "item"):
        return value.item()
    return str(value)


def _pipelines():
    import jwst.pipeline
    from jwst.step import WfsCombineStep
    from stpipe import Pipeline

    found = (getattr(jwst.pipeline, name) for name in jwst.pipeline.__all__)
    pipelines = {cls.__name__: cls for cls in found if issubclass(cls, Pipeline)}
    # A step that is a stage of its own.
    return {**pipelines, WfsCombineStep.__name__: WfsCombineStep}


def _steps(cls):
    """Return the classes of the steps of a pipeline, or the step itself, by name."""
    return getattr(cls, "step_defs", None) or {cls.class_alias: cls}


def _steps_of(config, cls):
    """Return the part of a configuration that is about steps."""
    return config.get("steps", {}) if hasattr(cls, "step_defs") else {cls.class_alias: config}


def specs():
    """Return the specification of every parameter of every step of every pipeline.

    Returns
    -------
    dict
        ``pipelines``: by class name, ``alias``, ``own`` (parameters of the pipeline itself) and
        ``steps``, where a parameter has the text that stpipe's validator reads; ``words``: what the
        data model allows for instruments, channels, detectors, filters and pupils.
    """
    pipelines = {}
    for name, cls in _pipelines().items():
        spec = cls.load_spec_file()
        pipelines[name] = {
            "alias": cls.class_alias,
            "own": {par: str(check) for par, check in spec.items() if par != "steps"},
            "steps": {
                step: {par: str(check) for par, check in section.items()}
                for step, section in _steps_of(spec, cls).items()
            },
        }
    return {"pipelines": pipelines, "words": _words()}


def _words():
    from stdatamodels.jwst.datamodels import JwstDataModel

    meta = JwstDataModel().schema["properties"]["meta"]["properties"]
    instrument = meta["instrument"]["properties"]
    return {
        name: [str(word) for word in _enumerated(instrument[name])]
        for name in ("name", "channel", "detector", "filter", "pupil")
    }


def _enumerated(schema):
    found = list(schema.get("enum", ()))
    for kind in ("anyOf", "oneOf", "allOf"):
        for inner in schema.get(kind, ()):
            found += _enumerated(inner)
    return [word for word in found if word is not None]


def read_config(path):
    """Return the class, the parameters and the steps of an stpipe configuration file.

    Parameters
    ----------
    path : str
        An ``.asdf`` file, or one in the older ``.cfg`` form.

    Returns
    -------
    dict
        ``class``, ``step`` (the name of that class as a step) and ``parameters``, in which
        ``steps`` is a dictionary by step.
    """
    from stpipe import config_parser, utilities

    config = config_parser.load_config_file(path).dict()
    name = config.pop("class", "")
    step = utilities.import_class(name).class_alias if name else config.get("name", "")
    return {"class": name, "step": step, "parameters": _plain(config)}


def resolve(parameters, pipeline, steps):
    """Find parameters and references of one pipeline for one set-up of an instrument.

    Parameters
    ----------
    parameters : dict
        What CRDS matches on.
    pipeline : str
        Class name in `jwst.pipeline`.
    steps : dict
        ``{step: {parameter: value}}`` above those of CRDS.

    Returns
    -------
    dict
        ``pars`` and ``references`` (by type: ``name``, ``path``), ``missing`` (parameter files
        that are not there, as if they said nothing), ``errors`` (``[type, message]``), ``crds``,
        ``effective`` and ``base`` (parameters that CRDS gives, that hold, and that would hold if
        nothing had been asked).
    """
    from stpipe import config_parser

    cls = _pipelines()[pipeline]
    classes = [*_steps(cls).values(), cls]
    types = dict.fromkeys(step.get_config_reftype() for step in classes)
    pars, errors = _look_up(parameters, list(types), required=False)
    missing = [entry["name"] for entry in pars.values() if _is_absent(entry)]
    if missing:
        given = _present_config(config_parser, cls, pars)
    else:
        given = cls.get_config_from_reference(dict(parameters), crds_observatory="jwst")
    # The instance below changes the configuration that it is made of.
    crds = _plain(given.dict())
    base = cls.from_config_section(_config(config_parser, crds))
    asked = {"steps": steps} if hasattr(cls, "step_defs") else steps.get(cls.class_alias, {})
    instance = cls.from_config_section(_config(config_parser, crds, asked))
    overridden, wanted = {}, set()
    for name in _steps(cls):
        step = getattr(instance, name, instance)
        if step.skip:
            continue
        for reftype in step.reference_file_types:
            given = instance.get_ref_override(reftype)
            if given is not None:
                known = given.strip() not in ("", "N/A")
                name = os.path.basename(given) if known else "N/A"
                overridden[reftype] = {"name": name, "path": given if known else ""}
            elif step.prefetch_references:
                wanted.add(reftype)
    found, unknown = _look_up(parameters, sorted(wanted - set(overridden)), required=True)
    answer = {"pars": pars, "missing": missing, "errors": errors + unknown}
    answer["references"] = {**found, **overridden}
    answer["crds"] = {
        name: {par: value for par, value in section.items() if par not in ("class", "name")}
        for name, section in _steps_of(crds, cls).items()
        if section
    }
    answer["effective"] = _plain(_steps_of(instance.get_pars(), cls))
    answer["base"] = _plain(_steps_of(base.get_pars(), cls))
    return answer


def _present_config(config_parser, cls, pars):
    """Return the parameters in those files that are there, put together as stpipe does."""

    def load(step):
        entry = pars[step.get_config_reftype()]
        there = entry["name"] != "N/A" and not _is_absent(entry)
        return config_parser.load_config_file(entry["path"]) if there else {}

    steps = {name: load(step) for name, step in getattr(cls, "step_defs", {}).items()}
    return _config(config_parser, {"steps": steps} if steps else {}, load(cls))


def _config(config_parser, *parts):
    config = config_parser.ConfigObj()
    for part in parts:
        # Only sections are merged key by key; a plain dictionary would replace another.
        sections = config_parser.ConfigObj()
        config_parser.merge_config(sections, part)
        config_parser.merge_config(config, sections)
    return config


def _is_absent(entry):
    return entry["name"] != "N/A" and not os.path.exists(entry["path"])


def _look_up(parameters, types, *, required):
    """Return the best references by type, and what could not be decided on."""
    import crds

    if not types:
        return {}, []
    names = crds.getrecommendations(
        dict(parameters), reftypes=list(types), observatory="jwst", context=None
    )
    found, errors = {}, []
    for reftype in types:
        name = names.get(reftype, "NOT FOUND n/a")
        if name.lower().startswith("not found n/a") or name.upper() == "N/A":
            found[reftype] = {"name": "N/A", "path": ""}
        elif name.startswith("NOT FOUND"):
            # As the pipeline: a step without parameters of its own in CRDS has its defaults.
            if required:
                errors.append([reftype, name.removeprefix("NOT FOUND").strip(" :")])
        else:
            path = crds.locate_file(name, "jwst", parameters=dict(parameters))
            found[reftype] = {"name": name, "path": os.path.abspath(path)}
    return found, errors


COMMANDS = {f.__name__: f for f in (specs, read_config, resolve)}


def main():
    """Answer requests until the input ends."""
    # Libraries write to the standard output; the answers go where nobody else writes.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            request = json.loads(line)
            try:
                answer = {"result": COMMANDS[request["do"]](**request["with"])}
            # CRDS leaves by SystemExit.
            except (Exception, SystemExit) as error:
                kinds = [kind.__name__ for kind in type(error).__mro__]
                answer = {"error": type(error).__name__, "message": str(error), "kinds": kinds}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()

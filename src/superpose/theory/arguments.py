"""What a loss is asked of: models, worlds and how exactly, checked before anything is computed."""

from collections.abc import Sequence

from torch import Tensor

from superpose.features import Constant, Features, Finite, Law

Model = tuple[Tensor, ...]


def several(world: Features | Sequence[Features]) -> Sequence[Features]:
    """The worlds, one or more."""
    return [world] if isinstance(world, Features) else world


def refuse_finite(call: str, world: Features | Sequence[Features], remedy: str) -> None:
    """Raise ValueError for a finite world, which has no law that a closed form could read."""
    if any(isinstance(each.law, Finite) for each in several(world)):
        raise ValueError(
            f"{call}: the world is finite, a data set of {several(world)[0].law} and no law of "
            f"magnitudes; {remedy}"
        )


def check(
    call: str,
    model: Model,
    world: Features | Sequence[Features],
    output: str,
    tolerance: float,
) -> None:
    """Raise where W, W_out where there is one, and b do not fit one another or the world."""
    W, b = model[0], model[-1]
    _check_kinds(call, model, world)
    if W.ndim < 2 or b.shape != W.shape[:-1]:
        turned = b.shape == (*W.shape[:-2], *W.shape[-1:])
        remedy = "W looks transposed: pass W.mT" if turned else f"b of shape {list(W.shape[:-1])}"
        raise ValueError(
            f"{call}: W has shape {list(W.shape)} and b {list(b.shape)}; W is "
            f"[*run, n, m] and b [*run, n] ({remedy})"
        )
    if model[-2].shape != W.shape:
        raise ValueError(
            f"{call}: W has shape {list(W.shape)} and W_out {list(model[-2].shape)}; the two of an "
            "untied model are alike, [*run, n, m], one row for each feature"
        )
    if not isinstance(world, Features):
        _check_worlds(call, W, world)
    n = several(world)[0].n
    if W.shape[-2] != n:
        raise ValueError(
            f"{call}: W has shape {list(W.shape)}, but the world has n={n} "
            "features; W is [*run, n, m], one row for each feature (transpose a W that is [m, n])"
        )
    if output not in ("relu", "linear"):
        raise ValueError(f'{call}(output={output!r}): the output is "relu" or "linear"')
    if not 1e-10 <= tolerance <= 1e-2:
        raise ValueError(
            f"{call}(tolerance={tolerance!r}): the error allowed, as a share of the loss "
            "of a model that outputs 0, lies in [1e-10, 1e-2]; 1e-6 is enough for most uses"
        )
    if tolerance < 1e-7 and isinstance(several(world)[0].amplitude, Constant):
        raise ValueError(
            f"{call}(tolerance={tolerance!r}): constant magnitudes need a series that grows as "
            "1 / tolerance; ask for 1e-7 or more"
        )


def check_target(call: str, target: str, world: Features | Sequence[Features]) -> None:
    """Raise for an unknown target, and for |x| where its loss has no closed form here."""
    if target not in ("identity", "abs"):
        raise ValueError(f'{call}(target={target!r}): the target is "identity" (x) or "abs" (|x|)')
    first = several(world)[0]
    if target == "abs" and first.signed and first.law.size > 1 and not first.law.exclusive:
        raise ValueError(
            f'{call}(target="abs"): the sizes of signed features that come in sets {first.law} '
            "have no exact loss here; estimate it on samples"
        )


def _check_kinds(call: str, model: Model, world: object) -> None:
    if not all(isinstance(each, Tensor) for each in model):
        kinds = " and ".join(type(each).__name__ for each in model)
        raise TypeError(
            f"{call}: W and b are {kinds}; both are torch tensors (torch.as_tensor turns arrays "
            "and lists into one)"
        )
    if not isinstance(world, Features | Sequence):
        raise TypeError(f"{call}: {world!r} is no world; pass Features(n=…, p=…)")


def _check_worlds(call: str, W: Tensor, worlds: Sequence[Features]) -> None:
    if W.ndim < 3 or len(worlds) != W.shape[0] or not worlds:
        raise ValueError(
            f"{call}: W has shape {list(W.shape)} and there are {len(worlds)} worlds; several "
            "worlds are one for each entry of the first axis of W [worlds, *run, n, m]"
        )
    kinds = {(each.n, _law(each), each.amplitude, each.signed) for each in worlds}
    if len(kinds) > 1:
        raise ValueError(
            f"{call}: the worlds differ in n, law, amplitude or signed; those of one stack may "
            "differ in p and importance only: call once for each kind"
        )


def _law(world: Features) -> Law | type:
    """Worlds of one stack share their law; finite ones may each have points of their own."""
    return Finite if isinstance(world.law, Finite) else world.law

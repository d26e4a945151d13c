"""Experts added to a trained mixture, or dropped: they share no space, so that the others stay as they are. [ours]"""

from dataclasses import replace

import torch

from medbridge.errors import AdapterError
from medbridge.experts import Expert, create_expert
from medbridge.model import MedBridge, Member


def with_expert(model: MedBridge, expert: Expert | str, seed: int = 0) -> MedBridge:
    """A copy of ``model`` with one expert more, at the end, whose branch starts by ``seed``; ``card["edited"]`` says so. By name,
    it computes in the precision of the last one.

    AdapterError where the model has an expert of that name, ExpertError where it cannot be created.
    """
    names, name = [e.name for e in model.experts], expert if isinstance(expert, str) else expert.name
    if name in names:
        raise AdapterError(f"expert {name!r} is in this mixture already: it has {', '.join(names)}")
    expert = create_expert(expert, precision=model.experts[-1].precision) if isinstance(expert, str) else expert
    note = (f"added {expert.name} to {', '.join(names)}: its branch is untrained, and the router gives it about "
            f"1/{len(names) + 1}; train again before use")
    return _rebuilt(model, [*model.experts, expert], list(range(len(names))), seed, note)


def without_expert(model: MedBridge, name: str) -> MedBridge:
    """A copy of ``model`` without the expert ``name``; AdapterError where there is none, or it is the only one."""
    names = [e.name for e in model.experts]
    if name not in names:
        raise AdapterError(f"no expert {name!r} in this mixture: it has {', '.join(names)}")
    if len(names) == 1:
        raise AdapterError(f"{name!r} is the only expert of this model; add another before it is dropped")
    kept = [k for k, n in enumerate(names) if n != name]
    note = (f"dropped {name} from {', '.join(names)}: the other branches are as they were; the router was trained with it, "
            f"train again to set its weights right")
    return _rebuilt(model, [model.experts[k] for k in kept], kept, 0, note)


def _rebuilt(model: MedBridge, experts: list[Expert], kept: list[int], seed: int, note: str) -> MedBridge:
    """The model of ``experts``, the first of which are those numbered ``kept`` of ``model``; frozen experts are shared."""
    config = model.config
    if config.shared_expert not in [e.name for e in experts]:
        config = replace(config, shared_expert=None)
    if config.top_k is not None:
        config = replace(config, top_k=min(config.top_k, len(experts) - (config.shared_expert is not None)) or None)
    new = MedBridge(experts, model.labels, config, model.sampler, model.prompts, seed).to(model.device)
    for old_member, member in zip(model.members, new.members, strict=True):
        for k, old in enumerate(kept):
            member.branches[k].load_state_dict(old_member.branches[old].state_dict())
        for branch in member.branches[len(kept):]:  # the labels are as frequent for a newcomer as for the others
            bias = torch.stack([b.scores.bias.data for b in member.branches[: len(kept)]])
            branch.scores.bias.data.copy_(bias.mean(dim=0))
        _carry_over(old_member, member, kept)
    if model.bases is not None:
        for k, old in enumerate(kept):
            new.bases[k].load_state_dict(model.bases[old].state_dict())
    if model.readout is not None:  # linear in the experts' summaries: a newcomer's count nothing yet
        columns = model.readout.weight.split([3 * e.image_dim for e in model.experts], dim=2)
        weight = torch.cat([columns[old] for old in kept], dim=2)
        new.readout.weight[:, :, : weight.shape[2]] = weight
        for name in ("bias", "blend", "offset"):
            new.readout.get_buffer(name).copy_(model.readout.get_buffer(name))
    new.trained_films, new.card = model.trained_films, {**model.card, "edited": [*model.card.get("edited", []), note]}
    return new.eval()


def _carry_over(model: Member, new: Member, kept: list[int]) -> None:
    """Copy the router's weights of the kept experts; a router without weights on either side starts afresh, uniform."""
    router = getattr(model.router, "base", model.router)  # a memory of films belongs to the mixture as it was: it is left behind
    old_net, net = getattr(router, "net", None), getattr(new.router, "net", None)
    if old_net is None or net is None:
        return
    columns = old_net[0].weight.data.split([b.encoder.width for b in model.branches], dim=1)
    blocks = [columns[k] for k in kept]
    blocks += [torch.zeros_like(net[0].weight.data[:, : b.encoder.width]) for b in new.branches[len(kept):]]
    net[0].weight.data.copy_(torch.cat(blocks, dim=1))
    net[0].bias.data.copy_(old_net[0].bias.data)
    for old, part in zip(old_net[2].parameters(), net[2].parameters(), strict=True):
        # output rows by expert: those of the kept ones, and their mean for each newcomer
        rows = old.data.unflatten(0, (router.experts, -1))[kept]
        part.data.copy_(torch.cat([rows, *[rows.mean(dim=0, keepdim=True)] * (len(new.branches) - len(kept))]).flatten(0, 1))

"""Cases of the exercises of notebook 00."""

NAMES = {"0.1": "numbers_per_film", "0.2": "mixture", "0.3": "trainable_share"}


def _count(model, trained=None):
    return sum(p.numel() for p in model.parameters() if trained is None or p.requires_grad == trained)


WRONG = [
    ("0.1", lambda v, r, c, p, w, d: v * r * c * w * d, "add prefix"),
    ("0.1", lambda v, r, c, p, w, d: v * (r * c + p) * w, "number of depths is missing"),
    ("0.1", lambda v, r, c, p, w, d: (r * c + p) * w * d, "a film has N views"),
    ("0.1", lambda v, r, c, p, w, d: v * (r * c + p) * d, "counts tokens"),
    ("0.1", lambda v, r, c, p, w, d: 5, "15680 is right"),
    ("0.1", lambda *_: None, "returns nothing"),
    ("0.2", lambda s, g: (g * s).sum(1), "these are logits"),
    ("0.2", lambda s, g: (g * s.sigmoid()).sum(1), "mixes probabilities"),
    ("0.2", lambda s, g: s.mean(1).sigmoid(), "router's weights"),
    ("0.2", lambda s, g: (g * s).sum(1).softmax(-1), "several findings"),
    ("0.2", lambda s, g: (g * s).sum(2).sigmoid(), "dimension 1"),
    ("0.2", lambda s, g: (g * s).sum(1).sigmoid().numpy(), "torch tensor"),
    ("0.2", lambda s, g: s[:, 0].sigmoid(), "numbers do not"),
    ("0.3", lambda m: _count(m, True), "number of trainable parameters"),
    ("0.3", lambda m: 100 * _count(m, True) / _count(m), "per cent"),
    ("0.3", lambda m: _count(m, False) / _count(m), "frozen share"),
    ("0.3", lambda m: _count(m, True) / _count(m, False), "not by the frozen ones"),
    ("0.3", lambda m: sum(p.requires_grad for p in m.parameters()) / len(list(m.parameters())), "counts tensors"),
    ("0.3", lambda m: 1.0, "everything as trained"),
    ("0.3", lambda m: 0.3, "0.1667 is right"),
    ("0.3", lambda m: None, "returns nothing"),
]

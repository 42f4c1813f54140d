"""What is compared: the demo's run, and the same with one thing changed, each as settings over demo.toml."""

import msgspec

_VIEWS = "train.num_views=2"
_RESIDUAL = (
    "model.image_head={kind='residual', standardize_features=true, dropout=0.5}",
    "model.text_head={kind='residual', standardize_features=true, dropout=0.3}",
)


class Recipe(msgspec.Struct, frozen=True):
    """A name, what it changes against which other recipe, and the settings that do it.

    `needs_teacher` is true where `{teacher}` stands in the settings for the path of a bundle. A tower of `is_slow` runs
    at every step, for an hour and not for seconds: it is trained where it is named alone.
    """

    name: str
    settings: tuple[str, ...] = ()
    against: str = "infonce"
    is_slow: bool = False

    @property
    def needs_teacher(self) -> bool:
        """Say whether a teacher's bundle has to be given."""
        return any("{teacher}" in setting for setting in self.settings)


RECIPES = (
    Recipe("infonce", against=""),
    Recipe("temperature fixed at 0.1", ("loss.temperature=0.1", "loss.learn_temperature=false")),
    Recipe(
        "temperature 0.1 to 0.03",
        ("loss.temperature=0.1", "loss.learn_temperature=false", "loss.final_temperature=0.03"),
    ),
    Recipe("sigmoid", ("loss={kind='sigmoid'}",)),
    Recipe("hard negatives weighted, beta 0.25", ("loss={kind='hard_negatives', beta=0.25}",)),
    Recipe(
        "the same, captions above 0.8 spared",
        ("loss={kind='hard_negatives', beta=0.25, max_caption_similarity=0.8}",),
        against="hard negatives weighted, beta 0.25",
    ),
    Recipe("label smoothing 0.1", ("loss={kind='soft_targets', smoothing=0.1}",)),
    Recipe("targets by captions, 0.3", ("loss={kind='soft_targets', smoothing=0.0, caption_share=0.3}",)),
    Recipe("hard negatives mined, 0.25", ("mining.share=0.25", "mining.every=25")),
    Recipe("matryoshka 64 and 128", ("terms=[{kind='matryoshka', dims=[64, 128]}]",)),
    Recipe("residual heads", _RESIDUAL),
    Recipe(
        "residual heads from the linear map",
        (*_RESIDUAL, "model.start=linear_map"),
        against="residual heads",
    ),
    Recipe("three heads a side", ("model.num_members=3",)),
    Recipe("attention over tokens", ("text_tower.pooling=attention",)),
    Recipe(
        "LoRA on the text tower, rank 8",
        ("text_tower.frozen=false", "text_tower.lora={rank=8, alpha=16.0}", "optim.text_tower_lr=1e-3"),
        is_slow=True,
    ),
    Recipe("distilled from a bundle", ("terms=[{kind='distillation', teacher='{teacher}'}]",)),
    Recipe("two augmented views", (_VIEWS,)),
    Recipe("views told apart", (_VIEWS, "terms=[{kind='intra_modal', weight=0.5}]"), against="two augmented views"),
)

"""The list of models. Embedded ones ship with the studio; hub ones are loaded on demand (see hub.py)."""

from backends.models import Card, add

UNET = frozenset({"image", "cfg", "unet", "cross_attention", "vae", "gradients", "ddim"})

add(
    Card(
        name="emoji-ldm", title="Emoji LDM (embedded)", loader="backends.embedded:load_ldm", capabilities=UNET | {"emoji"},
        licence="Apache-2.0 (weights); drawings: Fluent emoji, MIT", source="emoji-ldm", parameters="28 M",
        trained_on="scenes of one to four Fluent 3D emoji with captions", command="make train MODEL=emoji_ldm MINUTES=60",
        previews="backends.embedded:small_previewer",
        about="Latent diffusion at 128 px: UNet2DConditionModel, v-prediction with zero terminal SNR, MiniLM text states.",
    ),
)  # fmt: skip

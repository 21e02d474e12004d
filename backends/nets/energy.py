"""EDLM's energy network: one number for how badly a whole answer fits its half-masked canvas."""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from transformers import LlamaConfig, LlamaModel


class EnergyNetwork(ModelMixin, ConfigMixin):
    """E(x_t, x0) as in Xu et al., arXiv 2410.21357, section 4.2: both canvases' embeddings side by side, through a projection, a few
    bidirectional layers, the mean over the answer's tokens, and two linear layers.

    Embeddings are the denoiser's own and not stored here; the layers start as copies of its first ones. No time step: the canvas
    shows how much is masked.
    """

    @register_to_config
    def __init__(self, hidden_size: int = 576, intermediate_size: int = 1536, layers: int = 2, heads: int = 9, key_value_heads: int = 3,
                 rope_theta: float = 500.0):  # fmt: skip
        super().__init__()
        config = LlamaConfig(hidden_size=hidden_size, intermediate_size=intermediate_size, num_hidden_layers=layers, num_attention_heads=heads,
                             num_key_value_heads=key_value_heads, rope_theta=rope_theta, vocab_size=1, is_causal=False, use_cache=False, pad_token_id=None,
                             bos_token_id=None, eos_token_id=None, max_position_embeddings=128)  # fmt: skip
        self.join = torch.nn.Linear(2 * hidden_size, hidden_size)
        self.trunk = LlamaModel._from_config(config, attn_implementation="eager")
        self.head = torch.nn.Sequential(torch.nn.Linear(hidden_size, hidden_size), torch.nn.SiLU(), torch.nn.Linear(hidden_size, 1))

    def start_from(self, denoiser) -> None:
        """Copy the denoiser's first layers; the projection passes the answer's embeddings on, and the energy starts at 0."""
        for mine, theirs in zip(self.trunk.layers, denoiser.model.layers):
            mine.load_state_dict(theirs.state_dict())
        self.trunk.norm.load_state_dict(denoiser.model.norm.state_dict())
        with torch.no_grad():
            self.join.weight.copy_(torch.cat([torch.zeros_like(self.join.weight[:, : self.config.hidden_size]), torch.eye(self.config.hidden_size)], 1))
            self.join.bias.zero_(), self.head[-1].weight.zero_(), self.head[-1].bias.zero_()

    def forward(self, noisy, clean, answer):
        """(B,) energies. `noisy`, `clean`: embeddings (B, N, D) of x_t and x0; `answer` (B, N) bool: which tokens are the answer's."""
        states = self.trunk(inputs_embeds=self.join(torch.cat([noisy, clean], -1))).last_hidden_state
        pooled = (states * answer[..., None]).sum(1) / answer.sum(1, keepdim=True).clamp_min(1)
        return self.head(pooled)[:, 0]

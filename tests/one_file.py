"""A diffusers folder's Stable Diffusion parts as one safetensors file in the original names."""

import re

from safetensors.torch import save_file

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
VAE_RESNET = {"conv_shortcut": "nin_shortcut"}
VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}


def _swap(rest, names):
    for new, old in names.items():
        if rest.startswith(new + "."):
            return old + rest[len(new) :]
    return rest


def unet_key(key, layers):
    per = layers + 1
    if found := re.match(r"down_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.*)", key):
        block, kind, layer, rest = found.groups()
        place = f"input_blocks.{1 + int(block) * per + int(layer)}"
        return f"{place}.{'0' if kind == 'resnets' else '1'}.{_swap(rest, RESNET)}"
    if found := re.match(r"down_blocks\.(\d+)\.downsamplers\.0\.conv\.(.*)", key):
        return f"input_blocks.{(int(found[1]) + 1) * per}.0.op.{found[2]}"
    if found := re.match(r"mid_block\.(resnets|attentions)\.(\d+)\.(.*)", key):
        place = 1 if found[1] == "attentions" else 2 * int(found[2])
        return f"middle_block.{place}.{_swap(found[3], RESNET)}"
    if found := re.match(r"up_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.*)", key):
        block, kind, layer, rest = found.groups()
        place = f"output_blocks.{int(block) * per + int(layer)}"
        return f"{place}.{'0' if kind == 'resnets' else '1'}.{_swap(rest, RESNET)}"
    if found := re.match(r"up_blocks\.(\d+)\.upsamplers\.0\.(.*)", key):
        return f"output_blocks.{int(found[1]) * per + per - 1}.1.{found[2]}"
    return _swap(key, UNET)


def vae_key(key, blocks):
    if found := re.match(r"(en|de)coder\.(down|up)_blocks\.(\d+)\.resnets\.(\d+)\.(.*)", key):
        side, way, block, layer, rest = found.groups()
        block = int(block) if way == "down" else blocks - 1 - int(block)
        return f"{side}coder.{way}.{block}.block.{layer}.{_swap(rest, VAE_RESNET)}"
    if found := re.match(r"(en|de)coder\.(down|up)_blocks\.(\d+)\.\w+samplers\.0\.(.*)", key):
        side, way, block, rest = found.groups()
        block = int(block) if way == "down" else blocks - 1 - int(block)
        return f"{side}coder.{way}.{block}.{way}sample.{rest}"
    if found := re.match(r"(en|de)coder\.mid_block\.resnets\.(\d+)\.(.*)", key):
        return f"{found[1]}coder.mid.block_{int(found[2]) + 1}.{_swap(found[3], VAE_RESNET)}"
    if found := re.match(r"(en|de)coder\.mid_block\.attentions\.0\.(.*)", key):
        return f"{found[1]}coder.mid.attn_1.{_swap(found[2], VAE_ATTENTION)}"
    return key.replace("conv_norm_out", "norm_out")


def save(parts, file):
    """Write unet, vae and text_encoder of `parts` as one file."""
    config = parts["unet"].config
    state = {}
    for key, value in parts["unet"].state_dict().items():
        state["model.diffusion_model." + unet_key(key, config.layers_per_block)] = value
    blocks = len(parts["vae"].config.block_out_channels)
    for key, value in parts["vae"].state_dict().items():
        name = vae_key(key, blocks)
        if re.search(r"attn_1\.(q|k|v|proj_out)\.weight", name):
            value = value[..., None, None]  # a 1 x 1 convolution
        state["first_stage_model." + name] = value
    for key, value in parts["text_encoder"].state_dict().items():
        name = key if key.startswith("text_model.") else "text_model." + key
        state["cond_stage_model.transformer." + name] = value
    save_file({k: v.contiguous().clone() for k, v in state.items()}, file)
    return file

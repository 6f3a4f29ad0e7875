import pytest
import torch
from torch import nn

from uniemo_ray.models.interactive import CrossAttention, InteractiveBlock


@pytest.fixture
def block():
    torch.manual_seed(0)
    return InteractiveBlock(8, 2, 2)


@pytest.fixture
def inputs():
    torch.manual_seed(1)
    return torch.randn(2, 3, 8), torch.randn(2, 5, 8)


def test_equals_equation_two_by_hand(block, inputs):
    queries, context = inputs
    normed = block.norm(context)
    expected = queries
    for layer in block.layers:
        reference = nn.MultiheadAttention(8, 2, batch_first=True)
        attn = layer.cross_attn
        with torch.no_grad():
            reference.in_proj_weight.copy_(
                torch.cat([attn.q_proj.weight, attn.k_proj.weight, attn.v_proj.weight])
            )
            reference.in_proj_bias.zero_()
            reference.out_proj.load_state_dict(attn.proj.state_dict())
        expected = expected + reference(layer.norm1(expected), normed, normed)[0]
        hidden = layer.mlp[0](layer.norm2(expected))
        expected = expected + layer.mlp[2](hidden * torch.sigmoid(1.702 * hidden))
    torch.testing.assert_close(block(queries, context), expected)


def test_biases_and_sizes(block):
    names = {name.removeprefix("layers.0.") for name, _ in block.named_parameters() if "layers.0" in name}
    assert {n for n in names if n.startswith("cross_attn")} == {
        "cross_attn.q_proj.weight",
        "cross_attn.k_proj.weight",
        "cross_attn.v_proj.weight",
        "cross_attn.proj.weight",
        "cross_attn.proj.bias",
    }
    assert block.layers[0].mlp[0].weight.shape == (32, 8)


def test_attention_is_that_of_the_last_layer(block, inputs):
    queries, context = inputs
    seen = block.attention(queries, context)
    assert seen.shape == (2, 5)
    torch.testing.assert_close(seen.sum(dim=1), torch.ones(2))
    normed = block.norm(context)
    late = block.layers[1]
    expected = late.cross_attn.weights(late.norm1(block.layers[0](queries, normed)), normed)
    torch.testing.assert_close(seen, expected.mean(dim=(1, 2)))


def test_weights_explain_the_output(inputs):
    torch.manual_seed(3)
    queries, context = inputs
    attn = CrossAttention(8, 2)
    values = attn.v_proj(context).reshape(2, 5, 2, 4).transpose(1, 2)
    mixed = (attn.weights(queries, context) @ values).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attn(queries, context), attn.proj(mixed))


def test_heads_must_split_the_width():
    with pytest.raises(ValueError, match="3 heads, got 8"):
        CrossAttention(8, 3)

"""Fused experts and experts as single modules in the walk."""

import pytest
import torch
import transformers as hf

import tiny
from hemorrhage.activations import calibration


def groups_of(model, tokens, **options):
    groups = []
    calibration.walk(model, tokens, groups.append, **options)
    return groups


def test_experts_see_the_rows_that_are_routed_to_them():
    model, tokens = tiny.build("mixtral"), tiny.tokens(2, 10)
    groups = groups_of(model, tokens)
    for block in range(3):
        for part in ("gate_up_proj", "down_proj"):
            rows = [g.rows for g in groups if g.block == block and part in g.targets[0].name]
            assert len(rows) == 4 and sum(rows) == 2 * 20


def test_the_down_projection_of_an_expert_sees_changed_weights():
    model, tokens = tiny.build("mixtral", blocks=1), tiny.tokens(2, 10)
    seen = {}

    def visit(group):
        target = group.targets[0]
        if "gate_up" in target.name:
            target.write(torch.zeros_like(target.weight))
        seen[target.name] = group.square_mean()

    calibration.walk(model, tokens, visit)
    assert all(value.abs().max() == 0 for name, value in seen.items() if "down_proj" in name)
    assert all(value.abs().max() > 0 for name, value in seen.items() if "gate_up" in name)


@pytest.mark.parametrize("chunk", [None, 2])
@pytest.mark.parametrize("order", calibration.ORDERS)
def test_an_expert_that_nobody_chose_comes_with_no_rows(chunk, order):
    model = tiny.build("mixtral")
    for layer in model.model.layers:
        layer.mlp.gate.register_forward_hook(lambda m, a, out: (out[0], out[1], out[2] % 2))  # experts 0 and 1 only
    groups = groups_of(model, tiny.tokens(), chunk=chunk, order=order)
    rows = {g.targets[0].name: g.rows for g in groups if g.targets[0].kind == "expert"}
    assert len(rows) == 3 * 8
    assert all((count == 0) == ("[2]" in name or "[3]" in name) for name, count in rows.items())


def test_experts_as_single_modules_are_grouped_also_if_unreached():
    class Expert(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gate_proj, self.up_proj = torch.nn.Linear(32, 16), torch.nn.Linear(32, 16)

        def forward(self, x):
            return torch.nn.functional.pad(self.gate_proj(x) * self.up_proj(x), (0, 16))

    class Mixture(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gate, self.experts = torch.nn.Linear(32, 3), torch.nn.ModuleList(Expert() for _ in range(3))

        def forward(self, x):
            return self.experts[1](x)

    model = tiny.build("llama", blocks=2)
    for layer in model.model.layers:
        layer.mlp = Mixture()
    groups = [[t.name.split("layers.")[1] for t in g.targets] for g in groups_of(model, tiny.tokens())]
    for block in range(2):
        for expert in range(3):
            part = f"{block}.mlp.experts.{expert}"
            assert [f"{part}.gate_proj.weight", f"{part}.up_proj.weight"] in groups
    assert not any("mlp.gate.weight" in name for group in groups for name in group)


def test_transposed_interleaved_experts_get_their_own_intermediate():
    config = hf.GptOssConfig(
        vocab_size=128,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        head_dim=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
        num_experts_per_tok=4,
    )
    torch.manual_seed(0)
    model = hf.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    module, outputs = model.model.layers[0].mlp.experts, {}
    module.register_forward_hook(lambda m, args, out: outputs.update(out=out, args=args))
    groups = groups_of(model, tiny.tokens(2, 6), statistics=("samples",))
    made = {g.targets[0].expert: (g.samples(), g.targets[0].weight) for g in groups if "down_proj" in g.targets[0].name}
    _, chosen, weights = outputs["args"]
    total = torch.zeros_like(outputs["out"]).reshape(-1, 32)
    for expert, (x, weight) in made.items():  # every expert sees every token here
        share = (weights * (chosen == expert)).sum(-1, keepdim=True)
        total += share * (x @ weight.T + module.down_proj_bias[expert])
    torch.testing.assert_close(total, outputs["out"].reshape(-1, 32), rtol=1e-4, atol=1e-5)

"""Each choice on stock transformers: what moves, and that other people's loaders read what is
written."""

import pytest
import torch
import transformers

from nacre.core.errors import Incompatible
from nacre.core.tensors import trainable
from nacre.fine_tuning import CHOICES, Bias, Full, LoRA, Norms, prepare
from nacre.fine_tuning.export import export
from nacre.models import Pretrained, build, load, random_inputs, save
from tests.models.transformer_folders import FAMILIES, TOKENS, T, folder_of

families = pytest.mark.parametrize("family", FAMILIES)
rows = random_inputs((T,), TOKENS, 4)

VALUES = {"Bert": "query", "Roberta": "query", "DistilBert": "q_lin", "GPT2": "c_attn",
          "Llama": "q_proj", "Qwen3": "q_proj", "Mistral": "q_proj"}  # fmt: skip


def made(family, into, task="classification"):
    outputs = TOKENS if task == "causal_lm" else 3
    option = Pretrained(name=folder_of(family, into).name, task=task)
    return build(option, (T,), outputs, 0, into).eval()


def moved(model):
    """The model with every trainable weight changed by a fixed random amount."""
    stream = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter += 0.1 * torch.randn(parameter.shape, generator=stream)
    return model


def in_head(name, model):
    return name.startswith(model.new_head())


@pytest.mark.diagonal
@families
@pytest.mark.parametrize("kind", CHOICES)
def test_what_moves_is_trainable_and_everything_else_is_fixed(family, kind, tmp_path):
    model = made(family, tmp_path)
    if kind is Bias and family in ("Llama", "Qwen3", "Mistral"):
        with pytest.raises(Incompatible, match="this one has none"):
            prepare(kind(), model, 0)
        return
    before = model(rows)
    prepare(kind(), model, 0)
    assert torch.equal(model(rows), before)
    state = {name: p.clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):  # the first step of LoRA moves B alone, since B is zero
        model(rows).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, state[name])}
    assert changed <= set(trainable(model))
    assert any(in_head(name, model) for name in changed)


@families
def test_norms_move_the_norm_layers_of_every_family(family, tmp_path):
    model = made(family, tmp_path)
    names = set(trainable(prepare(Norms(), model, 0)))
    own = {n for n, _ in model.named_parameters() if "norm" in n.lower() or ".ln_" in n}
    assert names == own | {n for n, _ in model.named_parameters() if in_head(n, model)}
    assert own


@pytest.mark.parametrize("family", ["Bert", "Roberta", "DistilBert", "GPT2"])
def test_bias_moves_the_biases(family, tmp_path):
    model = made(family, tmp_path)
    names = set(trainable(prepare(Bias(), model, 0)))
    own = {name for name, _ in model.named_parameters() if name.endswith(".bias")}
    assert names == own | {n for n, _ in model.named_parameters() if in_head(n, model)}


@families
def test_lora_adapts_query_and_value_by_itself_and_trains_the_new_head(family, tmp_path):
    model = prepare(LoRA(rank=2), made(family, tmp_path), 0)
    names = set(trainable(model))
    adapters = {name for name in names if ".lora_" in name}
    assert {n for n in names - adapters} == {
        n for n, _ in model.named_parameters() if in_head(n, model)
    }
    assert any(f".{VALUES[family]}.lora_A" in name for name in adapters)
    assert len(adapters) == (4 if family == "GPT2" else 8)
    fixed = prepare(LoRA(rank=2, head=False), made(family, tmp_path), 0)
    assert set(trainable(fixed)) == adapters


def test_the_end_of_a_name_stands_for_that_layer_of_every_block(tmp_path):
    targets = ("o_proj", "network.model.layers.1.mlp.up_proj")
    model = prepare(LoRA(rank=2, targets=targets, head=False), made("Llama", tmp_path), 0)
    assert {name.split(".lora_")[0] for name in trainable(model)} == {
        "network.model.layers.0.self_attn.o_proj",
        "network.model.layers.1.self_attn.o_proj",
        "network.model.layers.1.mlp.up_proj",
    }


def test_embeddings_are_no_targets(tmp_path):
    with pytest.raises(Incompatible, match="is a Embedding; name others"):
        prepare(LoRA(targets=("embed_tokens",)), made("Llama", tmp_path), 0)


def test_rslora_scales_by_the_root_of_the_rank(tmp_path):
    model = prepare(LoRA(rank=4, alpha=6.0, rslora=True), made("Llama", tmp_path), 0)
    layer = model.get_submodule("network.model.layers.0.self_attn.q_proj")
    assert layer.scaling["default"] == pytest.approx(3.0)


@pytest.mark.diagonal
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # PEFT reads it
@families
@pytest.mark.parametrize(
    "choice",
    [
        LoRA(rank=2),
        LoRA(rank=2, rslora=True, head=False),
        LoRA(rank=2, dora=True),
    ],
)
def test_an_exported_adapter_loads_onto_the_stock_class(family, choice, tmp_path):
    from peft import PeftModel

    plain, model = made(family, tmp_path), made(family, tmp_path)
    before = model(rows)
    moved(prepare(choice, model, 0)).eval()
    assert not torch.allclose(model(rows), before, atol=1e-4)
    into = tmp_path / "adapter"
    into.mkdir()
    export(model, into, "adapter")
    plain.network = PeftModel.from_pretrained(plain.network, str(into)).merge_and_unload()
    assert torch.allclose(plain.eval()(rows), model(rows), atol=1e-5)


@pytest.mark.diagonal
@families
@pytest.mark.parametrize("choice", [Full(), LoRA(rank=2), LoRA(rank=2, dora=True)])
def test_a_merged_export_loads_in_transformers(family, choice, tmp_path):
    model = moved(prepare(choice, made(family, tmp_path), 0)).eval()
    model.files["tokenizer.json"] = "{}"
    into = tmp_path / "merged"
    into.mkdir()
    export(model, into)
    again = transformers.AutoModelForSequenceClassification.from_pretrained(into).eval()
    plain = made(family, tmp_path)
    plain.network = again
    assert torch.allclose(plain.eval()(rows), model(rows), atol=1e-5)
    assert (into / "tokenizer.json").read_text() == "{}"


@pytest.mark.parametrize("family", ["GPT2", "Llama"])
def test_a_language_model_is_exported_with_its_tied_head(family, tmp_path):
    model = moved(prepare(Full(), made(family, tmp_path, "causal_lm"), 0)).eval()
    into = tmp_path / "merged"
    into.mkdir()
    export(model, into)
    again = transformers.AutoModelForCausalLM.from_pretrained(into).eval()
    full = random_inputs((T,), TOKENS, 1)
    assert torch.allclose(again(input_ids=full).logits, model(full), atol=1e-5)


def test_a_run_with_adapters_is_saved_merged_and_loads(tmp_path):
    from nacre.fine_tuning.export import merged

    model = moved(prepare(LoRA(rank=2), made("GPT2", tmp_path), 0)).eval()
    plain = made("GPT2", tmp_path)
    plain.load_state_dict(merged(model))
    run = tmp_path / "run"
    run.mkdir()
    save(plain, Pretrained(name="gpt2"), run, shape=(T,), outputs=3, task="classification",
         scaler=None, folder=tmp_path)  # fmt: skip
    assert torch.allclose(load(run)(rows), model(rows), atol=1e-5)


@families
def test_dora_learns_lengths_and_starts_as_the_base(family, tmp_path):
    plain, model = made(family, tmp_path), made(family, tmp_path)
    prepare(LoRA(rank=2, dora=True), model, 0).eval()
    assert torch.allclose(model(rows), plain.eval()(rows), atol=1e-5)
    assert any("magnitude" in name for name in trainable(model))

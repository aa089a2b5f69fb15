"""A small judge of random weights in torch, its folder, and its answers by transformers alone."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image

from onereward_jax.mini.mini_tokenizers import qwen_tokenizer
from onereward_jax.reward import QueryTemplate, packaged_template
from onereward_jax.reward.query_template import IMAGE, IMAGE_TOKEN
from onereward_jax.tasks import Dimension, Task


@dataclasses.dataclass(frozen=True)
class TorchJudge:
    """A judge's folder as transformers wrote it, and the parts it was written from."""

    path: Path
    model: transformers.Qwen2_5_VLForConditionalGeneration
    tokenizer: transformers.PreTrainedTokenizerBase
    processor: transformers.Qwen2VLImageProcessor

    def probability(
        self,
        a: Image.Image,
        b: Image.Image,
        task: Task,
        dimension: Dimension,
        prompt: str,
        template: QueryTemplate | None = None,
        source: Image.Image | None = None,
    ) -> float:
        """P("Yes") by transformers alone; `source` is the picture that `template` shows first."""
        images = self.processor([source, a, b] if source else [a, b], return_tensors="pt")
        count = int(images["image_grid_thw"][0].prod()) // self.processor.merge_size**2
        image = IMAGE.format(image=IMAGE_TOKEN * count)
        template = template or packaged_template()
        asked = template.task_text(task) + template.suffix_text(dimension, prompt)
        text = "".join(before + image for before in template.before_images()) + asked
        inputs = self.tokenizer(text, return_tensors="pt")
        is_image = inputs["input_ids"] == self.model.config.image_token_id
        with torch.no_grad():
            logits = self.model(**inputs, **images, mm_token_type_ids=is_image.int()).logits
        yes = self.tokenizer.convert_tokens_to_ids("Yes")
        return float(torch.softmax(logits[0, -1].double(), 0)[yes])


def saved_judge(path: Path) -> TorchJudge:
    """Writes `random_judge` with tokenizer and image processor; its answers are not tiny."""
    tokenizer = qwen_tokenizer(packaged_template().texts())
    processor = transformers.Qwen2VLImageProcessor(
        patch_size=8, size={"shortest_edge": 32 * 32, "longest_edge": 64 * 64}
    )
    model = random_judge(tokenizer, 0.3)
    with torch.no_grad():
        # As it is, two words of some hundred would share less than a per cent.
        words = model.get_input_embeddings().weight
        words[tokenizer.convert_tokens_to_ids("Yes")] *= 3
    for part in (model, tokenizer, processor):
        part.save_pretrained(path)
    return TorchJudge(path, model, tokenizer, processor)


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Changes a JSON file in place."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def random_judge(
    tokenizer: transformers.PreTrainedTokenizerBase, initializer_range: float
) -> transformers.Qwen2_5_VLForConditionalGeneration:
    """Two layers for language and two for vision, of patches of 8 × 8 pixels."""
    torch.manual_seed(0)
    config = transformers.Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer) + 3,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "initializer_range": initializer_range,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [1, 1, 2],
                "rope_theta": 1e4,
            },
            "bos_token_id": 0,
            "eos_token_id": 0,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "patch_size": 8,
            "out_hidden_size": 32,
            "window_size": 32,
            "fullatt_block_indexes": [1],
            "initializer_range": initializer_range,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        tie_word_embeddings=True,
    )
    return transformers.Qwen2_5_VLForConditionalGeneration(config).eval()

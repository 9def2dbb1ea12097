"""A processor of images alone, which the folder of a small vision model brings along.

Qwen's own has a part for videos that needs torchvision; OpenRLHF loads the code of a model's folder.
"""

from transformers import ProcessorMixin, Qwen2_5_VLProcessor


class ImageOnlyProcessor(Qwen2_5_VLProcessor):
    def __init__(self, image_processor=None, tokenizer=None, chat_template=None):
        for kind in ("image", "video"):
            token = f"<|{kind}_pad|>"
            setattr(self, f"{kind}_token", token)
            setattr(self, f"{kind}_token_id", tokenizer.convert_tokens_to_ids(token))
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


ImageOnlyProcessor.register_for_auto_class("AutoProcessor")

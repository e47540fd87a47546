"""Continue the prompts with one variant and one decoder."""

from hemorrhage import checkpoints, jobs
from hemorrhage.architecture import models
from hemorrhage.corpus import prompts
from hemorrhage.corpus.tokens import TokenSet
from hemorrhage.decoding import generation
from hemorrhage.modification_data import ModificationData


def generate(modification, tokens, decoder, asked, length, data, output, others):
    """Write one line per prompt and seed; ``others`` holds the records of other variants by slug."""
    tokenizer = models.load_tokenizer(data.base)
    if asked["path"]:
        chosen = prompts.from_file(asked["path"], tokenizer, asked["count"])
    else:
        chosen = prompts.from_tokens(TokenSet.load(tokens), tokenizer, asked["count"], asked["tokens"])
    model, _ = checkpoints.open_variant(modification, data)
    opened = {slug: checkpoints.open_variant(record, data)[0] for slug, record in others.items()}
    made = generation.continue_prompts(
        model, chosen, decoder["name"], decoder["settings"], length["seeds"], length["new_tokens"], others=opened
    )
    generation.write_text(output, made, tokenizer, length["new_tokens"])


if __name__ == "__main__":
    with jobs.job(snakemake) as log:
        jobs.use_threads(snakemake)
        params = snakemake.params
        model_dir = snakemake.input.tokens.rsplit("/tokens/", 1)[0]
        data = ModificationData(model_dir, device=jobs.device(snakemake), trusted=tuple(params.trust), **params.given)
        generate(
            snakemake.input.modification,
            snakemake.input.tokens,
            params.decoder,
            params.prompts,
            params.length,
            data,
            snakemake.output.text,
            dict(zip(params.others, snakemake.input.others, strict=True)),
        )

"""Make an imported checkpoint able to generate: scorers, coefficients and emotion space from a data set.

    uniemo import-checkpoint stage2/ --preset vit_l14_sd15_released --data /data/EmoSet --out /models/released
    uniemo submit complete_model -- --model /models/released \
        --set data.kind=emoset --set data.root=/data/EmoSet --set run=RUN

The whole model is RUN/model. Submitting again continues; the model's settings are its own. A relative path
lies where that of `run` does, under ~/uniemo in a submitted job.
"""

from uniemo_ray.addresses import locate
from uniemo_ray.inference.model_folder import load_model_folder, save_model_folder
from uniemo_ray.jobs.command_line import execute, make_parser, overrides_of
from uniemo_ray.loop.run_steps import open_pipeline
from uniemo_ray.loop.source_model import check_completion, configure, open_source
from uniemo_ray.loop.step_tables import completion_steps


def main() -> None:
    """Check, run the steps, put the model in its place."""
    parser = make_parser(__doc__)
    parser.add_argument("--model", required=True, metavar="FOLDER", help="an imported model, local or s3://")
    arguments = parser.parse_args()
    source = open_source(locate(arguments.model))
    config = configure(source, arguments.config, overrides_of(arguments))
    check_completion(source, config)
    with open_pipeline(config, completion_steps(config, source)) as (run, pipeline):
        results = {result.record.name: result.record for result in pipeline.run()}
        made = f"{run.store.uri}/{results['model'].artefacts}/model"
        save_model_folder(load_model_folder(made), f"{run.store.uri}/model")
    print(f"accuracy on the test split: {results['encode'].metrics['test_accuracy']:.4f}")
    print(f"model: {run.store.uri}/model")


if __name__ == "__main__":
    execute(main)

"""The bars that users make themselves, with tqdm or `ray.experimental.tqdm_ray`: they count for a run."""

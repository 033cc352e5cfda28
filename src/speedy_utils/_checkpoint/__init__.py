"""``checkpoint=``: results of tasks on disk as they come, so that the same call goes on where it stood."""

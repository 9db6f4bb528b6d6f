"""Takes a few images of every class out of an archive: DIR/{train,test}/CLASS/*.

    python -m benchmarks.few_images ARCHIVE.tar.xz DIR --train=10 --test=100

The archive holds {train,test}/CLASS/IMAGE. Which images are taken depends on their names and on
--seed alone.
"""

import argparse
import random
import tarfile
from collections import defaultdict
from pathlib import Path, PurePosixPath


def main(archive: str, folder: str, train: int, test: int, seed: int) -> None:
    wanted = {"train": train, "test": test}
    with tarfile.open(archive) as file:
        by_class = defaultdict(list)
        for name in file.getnames():
            path = PurePosixPath(name)
            if len(path.parts) >= 3 and path.parts[-3] in wanted:
                by_class[path.parts[-3], path.parts[-2]].append(name)
        chosen = set()
        for (split, _), names in sorted(by_class.items()):
            chosen.update(random.Random(seed).sample(sorted(names), wanted[split]))
        # In the archive's order, which a compressed one is read in once.
        for member in file:
            data = file.extractfile(member) if member.name in chosen else None
            if data is not None:
                target = Path(folder, *PurePosixPath(member.name).parts[-3:])
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data.read())
    print(f"{len(chosen)} images of {len(by_class) // len(wanted)} classes are in {folder}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive")
    parser.add_argument("folder")
    parser.add_argument("--train", type=int, default=10, help="images of each class (10)")
    parser.add_argument("--test", type=int, default=100, help="images of each class (100)")
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))

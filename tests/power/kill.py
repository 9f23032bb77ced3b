"""A story on a directory of this computer, to be killed by who started it: kill.py PATH STORY LIFE

The neighbours' facts go to standard output as they become known, a line of JSON each, so they outlive the gateway. LIFE
0 is the story, in a later one it boots on what is there and finishes. Runs on both interpreters.
"""

import json
import sys

HERE = __file__.rsplit("/", 1)[0] if "/" in __file__ else "."
sys.path[:0] = [HERE + "/../portable", HERE + "/../../firmware", HERE + "/../../lib", HERE]

import stories  # noqa: E402
from world import NOON, World  # noqa: E402


class Told(World):
    def fact(self, *fact):
        sys.stdout.write(json.dumps(fact) + "\n")
        if hasattr(sys.stdout, "flush"):
            sys.stdout.flush()


def main(path, name, life):
    story = getattr(stories, name)()
    life = int(life)
    # Each life has other dice, or its mails would have the identities of another.
    world = Told(path, epoch=NOON + 7200 * life, seed=1 + 1000 * life, **story.settings)
    world.patient = life > 0
    world.run(story.finish(world) if life else story.run(world))
    world.fact("end")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What each Meta-World task is called, in several people's words.

A policy is told the task in words alone, so the phrasings name what is moved and where to. The
first of a task is its canonical one, which ``prompt_for`` returns; the others vary the data and
the tokenizer's training text. Tasks are named as in Meta-World without the version suffix. No
phrase belongs to two tasks. Plain text: neither MuJoCo nor ROS is imported here.
"""

from __future__ import annotations

import difflib

from vla_trt_ros.errors import ConfigError

BENCHMARK_TASKS = (
    'reach',
    'push',
    'pick-place',
    'door-open',
    'drawer-open',
    'button-press-topdown',
    'window-open',
)
"""The seven tasks that the nano policy is trained on and judged by."""

PROMPTS: dict[str, tuple[str, ...]] = {
    # the seven of BENCHMARK_TASKS
    'reach': (
        'reach the goal',
        'reach the green goal',
        'move the hand to the goal',
        'move the gripper to the goal position',
        'reach for the target',
        'go to the target',
        'bring the hand to the target point',
    ),
    'push': (
        'push the puck to the goal',
        'push the puck to the target',
        'push the object to the goal position',
        'slide the puck across the table to the goal',
        'move the puck along the table to the target',
        'shove the puck to the goal',
    ),
    'pick-place': (
        'pick up the puck and place it at the goal',
        'pick and place the puck',
        'lift the puck and carry it to the goal',
        'grasp the puck and bring it to the target',
        'pick up the object and move it to the goal in the air',
        'take the puck and place it at the target',
    ),
    'door-open': (
        'open the door',
        'pull the door open',
        'open the door by its handle',
        'swing the door open',
        'open the safe door',
        'pull the door handle to open the door',
    ),
    'drawer-open': (
        'open the drawer',
        'pull the drawer open',
        'pull out the drawer',
        'open the drawer by its handle',
        'slide the drawer out',
        'pull the drawer handle',
    ),
    'button-press-topdown': (
        'press the button from above',
        'press the button from the top',
        'push the button down',
        'press down on the button',
        'press the button on top of the box',
        'move down and press the red button',
    ),
    'window-open': (
        'open the window',
        'slide the window open',
        'push the window open',
        'open the sliding window',
        'move the window handle to open the window',
        'slide the window to the open side',
    ),
    # the rest of MT50
    'assembly': ('put the ring on the peg', 'place the nut over the peg', 'assemble ring and peg'),
    'basketball': ('put the ball in the basket', 'dunk the ball', 'drop the ball in the hoop'),
    'bin-picking': (
        'move the object to the other bin',
        'pick the cube and put it in the other bin',
        'carry the object from bin to bin',
    ),
    'box-close': ('close the box', 'put the lid on the box', 'cover the box with its lid'),
    'button-press': ('press the button', 'press the button from the front', 'push the button in'),
    'button-press-topdown-wall': (
        'press the button from above behind the wall',
        'reach over the wall and press the button down',
    ),
    'button-press-wall': (
        'press the button behind the wall',
        'go around the wall and press the button',
    ),
    'coffee-button': (
        'press the button of the coffee machine',
        'turn on the coffee machine',
        'make coffee',
    ),
    'coffee-pull': (
        'pull the mug away from the coffee machine',
        'take the mug from the coffee machine',
    ),
    'coffee-push': (
        'push the mug under the coffee machine',
        'put the mug in the coffee machine',
    ),
    'dial-turn': ('turn the dial', 'rotate the dial', 'turn the knob'),
    'disassemble': ('take the ring off the peg', 'lift the nut off the peg', 'remove the ring'),
    'door-close': ('close the door', 'push the door shut', 'shut the door'),
    'door-lock': ('lock the door', 'turn the lock to lock the door', 'lock it'),
    'door-unlock': ('unlock the door', 'turn the lock to unlock the door', 'unlock it'),
    'drawer-close': ('close the drawer', 'push the drawer shut', 'shut the drawer'),
    'faucet-close': ('close the faucet', 'turn off the faucet', 'turn the tap off'),
    'faucet-open': ('open the faucet', 'turn on the faucet', 'turn the tap on'),
    'hammer': (
        'hammer the nail',
        'pick up the hammer and hit the nail',
        'drive the nail in with the hammer',
    ),
    'hand-insert': (
        'put the object in the hole',
        'insert the hand into the hole',
        'place the cube in the hole with the gripper',
    ),
    'handle-press': ('press the handle down', 'push the handle down', 'push down the handle'),
    'handle-press-side': (
        'press the handle down from the side',
        'push the handle down sideways',
    ),
    'handle-pull': ('pull the handle up', 'lift the handle', 'raise the handle'),
    'handle-pull-side': ('pull the handle up from the side', 'lift the handle sideways'),
    'lever-pull': ('pull the lever up', 'pull the lever', 'raise the lever'),
    'peg-insert-side': (
        'insert the peg into the side hole',
        'put the peg in the hole of the box',
        'push the peg in sideways',
    ),
    'peg-unplug-side': ('unplug the peg', 'pull the peg out of the box', 'pull the plug out'),
    'pick-out-of-hole': (
        'pick the object out of the hole',
        'lift the puck out of the hole',
        'take the puck from the hole to the goal',
    ),
    'pick-place-wall': (
        'pick up the puck and place it behind the wall',
        'carry the puck over the wall to the goal',
    ),
    'plate-slide': ('slide the plate into the cabinet', 'push the plate into the cabinet'),
    'plate-slide-back': ('slide the plate out of the cabinet', 'pull the plate out'),
    'plate-slide-back-side': (
        'slide the plate out of the cabinet sideways',
        'pull the plate out to the side',
    ),
    'plate-slide-side': (
        'slide the plate into the cabinet from the side',
        'push the plate sideways into the cabinet',
    ),
    'push-back': ('pull the puck back to the goal', 'push the puck back toward the robot'),
    'push-wall': (
        'push the puck around the wall to the goal',
        'push the puck past the wall',
    ),
    'reach-wall': ('reach the goal behind the wall', 'reach over the wall to the goal'),
    'shelf-place': (
        'place the puck on the shelf',
        'put the object on the shelf',
        'pick up the puck and place it on the shelf',
    ),
    'soccer': ('push the ball into the goal', 'kick the ball into the goal', 'score a goal'),
    'stick-pull': (
        'pull the thermos with the stick',
        'hook the thermos with the stick and pull it',
    ),
    'stick-push': (
        'push the thermos with the stick',
        'pick up the stick and push the thermos with it',
    ),
    'sweep': ('sweep the puck off the table', 'sweep the object away', 'sweep the cube aside'),
    'sweep-into': ('sweep the puck into the hole', 'push the object into the hole in the table'),
    'window-close': ('close the window', 'slide the window shut', 'push the window shut'),
}


def task_name(name: str) -> str:
    """Check a task's name, with or without Meta-World's suffix: 'reach-v3' -> 'reach'.

    An unknown one raises ConfigError, which suggests the nearest.
    """
    task = name.strip().lower().replace('_', '-').replace(' ', '-').removesuffix('-v3')
    if task in PROMPTS:
        return task
    near = difflib.get_close_matches(task, PROMPTS, n=1)
    hint = f'did you mean {near[0]!r}?' if near else f'known: {", ".join(sorted(PROMPTS))}.'
    raise ConfigError(f'task {name!r} is none of the {len(PROMPTS)} Meta-World tasks; {hint}')


def prompts_for(name: str) -> tuple[str, ...]:
    """All phrasings of a task, the canonical one first; ConfigError for an unknown task."""
    return PROMPTS[task_name(name)]


def prompt_for(name: str) -> str:
    """The canonical phrasing of a task; ConfigError for an unknown task."""
    return PROMPTS[task_name(name)][0]

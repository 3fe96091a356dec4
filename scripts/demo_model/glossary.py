"""The words of Swarmesh, each with the sentence that the demo model learns to say about it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Word:
    """A word of the product's surface.

    ``asked_as`` are the noun phrases that fit after "What is"; ``plurals`` fit after "What are". ``more`` answers
    who asks for more than the meaning.
    """

    name: str
    asked_as: tuple[str, ...]
    meaning: str
    more: str
    plurals: tuple[str, ...] = ()


WORDS = (
    Word(
        "swarmesh",
        ("Swarmesh", "Swarmesh", "a swarmesh", "the swarmesh"),
        "Swarmesh turns the machines you own into one private AI swarm. A swarmesh is one queennode and "
        "everything it commands.",
        "A queennode starts and stops rustbees on your machines over plain SSH, sends each task to the right one, "
        "and relays the tokens one by one. Nothing leaves your machines.",
    ),
    Word(
        "queennode",
        ("a queennode", "the queennode", "queennode", "the queen", "a queen node", "the orchestrator"),
        "The queennode is the control plane and gateway of a swarmesh. You command the queennode, and it commands "
        "the rustbees.",
        "The queennode starts and stops rustbees, keeps its registry in the hivecomb, picks a rustbee for each "
        "task, and relays the tokens to the client.",
        ("queennodes",),
    ),
    Word(
        "hive",
        ("a hive", "the hive", "hive"),
        "A hive is one swarmesh seen from outside. Several hives form a hivemesh.",
        "A hive has one queennode and its rustbees. A hive that grows can split in two, and no task is lost.",
        ("hives",),
    ),
    Word(
        "hivemesh",
        ("a hivemesh", "the hivemesh", "hivemesh"),
        "A hivemesh is several hives that know each other and pass tasks on.",
        "In a hivemesh there is no single point of failure: hives may join and leave at any time.",
    ),
    Word(
        "rustbee",
        ("a rustbee", "rustbee", "the rustbee", "a worker", "a rust bee"),
        "A rustbee is a worker of the swarmesh: one process that owns exactly one model. It runs tasks and streams "
        "their tokens back.",
        "Each rustbee owns one model and its memory. It sends waggles to the queennode, and if it dies, another "
        "rustbee takes over its task.",
        ("rustbees", "workers"),
    ),
    Word(
        "modelcell",
        ("a modelcell", "the modelcell", "modelcell", "a model cell"),
        "A modelcell is the model that a rustbee serves, for example qwen or demo.",
        "You choose a modelcell when you spawn a rustbee: swarmesh spawn rustbee --modelcell demo.",
        ("modelcells",),
    ),
    Word(
        "cellalloc",
        ("cellalloc", "the cellalloc", "a cellalloc"),
        "Cellalloc is the memory that a rustbee holds, VRAM or RAM, counted in MiB.",
        "The memory of a host is never promised twice. A model that cannot fit is refused, with the numbers.",
    ),
    Word(
        "cell",
        ("a cell", "a slot", "a free slot"),
        "A cell, also called a slot, is one place for a running task inside a rustbee.",
        "A rustbee with four slots runs four tasks at once. A task is sent only when a slot is free for it.",
        ("cells", "slots"),
    ),
    Word(
        "hivecomb",
        ("the hivecomb", "a hivecomb", "hivecomb", "the registry", "the hive comb"),
        "The hivecomb is the registry of a swarmesh. It keeps the hosts, workers, models, tasks and tokens, and it "
        "survives a restart.",
        "The hivecomb is a SQLite file. A task is stored there before its submission is acknowledged.",
    ),
    Word(
        "waggleproto",
        ("waggleproto", "the waggleproto", "the waggle protocol", "waggle proto", "the heartbeat protocol"),
        "Waggleproto is the heartbeat protocol of a swarmesh: every rustbee reports its load, memory and quality "
        "to the queennode.",
        "The queennode answers each waggle and says when the next one is due: every 30 seconds at rest.",
    ),
    Word(
        "waggle",
        ("a waggle", "the waggle", "waggle", "a heartbeat"),
        "A waggle is one heartbeat of a rustbee: a short report of its load, memory and quality.",
        "A waggle names the rustbee, its place, its modelcell, its load, its memory and its quality.",
        ("waggles", "heartbeats"),
    ),
    Word(
        "waggleintensity",
        ("waggleintensity", "the waggleintensity", "a waggleintensity"),
        "Waggleintensity is the load of a rustbee, from 0.0 for idle to 1.0 for full.",
        "The queennode sends work to rustbees of low waggleintensity first.",
    ),
    Word(
        "wagglemetric",
        ("a wagglemetric", "the wagglemetric", "wagglemetric"),
        "The wagglemetric says how long the last waggle took and how old it is.",
        "An old wagglemetric is a sign that a rustbee may be lost.",
        ("wagglemetrics",),
    ),
    Word(
        "nectarquality",
        ("nectarquality", "the nectarquality", "nectar quality"),
        "Nectarquality is the quality of a rustbee from 0.0 to 1.0: how often and how fast it succeeded lately.",
        "Old results count less and less, so a rustbee that recovers earns its nectarquality back.",
    ),
    Word(
        "hivepath",
        ("a hivepath", "the hivepath", "hivepath"),
        "A hivepath says where a rustbee is and how to get there.",
        "The queennode follows the hivepath of a rustbee to send it work.",
        ("hivepaths",),
    ),
    Word(
        "nectarflow",
        ("a nectarflow", "the nectarflow", "nectarflow", "a task", "a nectar flow"),
        "A nectarflow is one AI task. It is durable, and it has a priority and a state.",
        "A nectarflow waits in the broodqueue, runs on one rustbee, and makes honeytokens. Submit one with: "
        'swarmesh nectarflow submit --prompt "Hello"',
        ("nectarflows", "tasks"),
    ),
    Word(
        "honeytokens",
        ("a honeytoken", "honeytokens", "the honeytokens", "honey tokens"),
        "Honeytokens are the output of a nectarflow: the tokens that the task has produced so far.",
        "Honeytokens are kept. Collect them later with: swarmesh honeytokens collect --job-id ID",
        ("honeytokens", "the honeytokens"),
    ),
    Word(
        "foragexec",
        ("foragexec", "a foragexec", "the foragexec"),
        "Foragexec is the execution of one task on one rustbee.",
        "During foragexec the tokens stream through the queennode to the client, one by one.",
    ),
    Word(
        "broodqueue",
        ("the broodqueue", "a broodqueue", "broodqueue", "the brood queue"),
        "The broodqueue is the priority queue of the queennode: tasks wait there for a free slot.",
        "Tasks of high priority leave the broodqueue first.",
    ),
    Word(
        "pherosignals",
        ("a pherosignal", "pherosignals", "the pherosignals"),
        "Pherosignals are the signals of the swarm: health, alarm, trail and priority.",
        "Health is the waggle, an alarm reports a dead worker, a trail remembers who served well, and priority "
        "lets a task go first.",
        ("pherosignals", "the pherosignals"),
    ),
    Word(
        "swarmscale",
        ("swarmscale", "the swarmscale", "swarm scale", "autoscaling"),
        "Swarmscale is autoscaling: it spawns rustbees when there is much work and stops them when there is little.",
        "Swarmscale stays between a minimum and a maximum, and it never flaps.",
    ),
    Word(
        "waggleroute",
        ("a waggleroute", "the waggleroute", "waggleroute"),
        "A waggleroute is the way a task takes to a rustbee, across hives too.",
        "A waggleroute is also called a nectarpath.",
        ("waggleroutes",),
    ),
    Word(
        "nectarpath",
        ("a nectarpath", "the nectarpath", "nectarpath"),
        "A nectarpath is the route of a task: the way it takes to a rustbee, across hives too.",
        "A nectarpath is also called a waggleroute.",
        ("nectarpaths",),
    ),
    Word(
        "cellsharing",
        ("cellsharing", "the cellsharing", "cell sharing"),
        "Cellsharing means that several tasks share one copy of a model, its memory and its prefix cache.",
        "With cellsharing a prompt that starts like an earlier one is read faster.",
    ),
    Word(
        "cellmorph",
        ("cellmorph", "a cellmorph", "the cellmorph"),
        "Cellmorph is a model swap: a host gives up one model to load another.",
        "Cellmorph helps when a host cannot hold two models at once.",
    ),
    Word(
        "rhaiswarm",
        ("rhaiswarm", "a rhaiswarm", "the rhaiswarm", "a rhaiswarm script"),
        "Rhaiswarm is scripting: you write small policy scripts that schedule the swarm, and they run in a sandbox.",
        "A rhaiswarm script is bounded in time. When it fails, the built-in policy decides.",
        ("rhaiswarm scripts",),
    ),
    Word(
        "hexamesh",
        ("the hexamesh", "a hexamesh", "hexamesh"),
        "The hexamesh lays hives on a hexagonal lattice, where each hive knows at most six neighbours.",
        "The hexamesh routes around dead cells on the shortest path.",
    ),
)

MEANING_QUESTIONS = (
    "What is {}?",
    "What is {}?",
    "What is {}?",
    "What's {}?",
    "What exactly is {}?",
    "Explain {}.",
    "Explain {} please.",
    "Please explain {}.",
    "Can you explain {}?",
    "Define {}.",
    "Describe {}.",
    "Tell me about {}.",
    "Tell me what {} is.",
    "Do you know what {} is?",
    "What does {} mean?",
    "What do you mean by {}?",
    "What is the meaning of {}?",
    "I want to know about {}.",
    "In one sentence, what is {}?",
    "{}?",
)
PLURAL_QUESTIONS = ("What are {}?", "Explain what {} are.", "Tell me about {}.", "What are {} for?")
MORE_QUESTIONS = (
    "Tell me more about {}.",
    "How does {} work?",
    "Say more about {}.",
    "What else should I know about {}?",
    "More about {} please.",
)
PAIR_QUESTIONS = (
    "What is the difference between {} and {}?",
    "What is {} and what is {}?",
    "Explain {} and {}.",
    "What are {} and {}?",
)
FOLLOW_UPS = ("Tell me more.", "Tell me more.", "More please.", "How does it work?", "Say more.", "And what else?")

"""Questions that are not about one word: how to do things with Swarmesh, what it promises, and a little about bees.

Every answer here must stay true of the product; a unit test holds the commands against the list below.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fact:
    """One answer and the ways to ask for it."""

    questions: tuple[str, ...]
    answer: str


COMMANDS = (
    Fact(
        (
            "How do I add a machine?",
            "How can I add a machine?",
            "How do I add another machine?",
            "How do I add a machine to the swarm?",
            "How do I add a host?",
            "How do I add a new computer?",
            "How do I connect my other computer?",
            "I want to add a machine.",
            "Add a machine",
            "Can I add more machines?",
            "How do I use my second machine?",
            "Which command adds a machine?",
            "Add machine",
            "How to add a machine",
            "What is swarmesh hosts add?",
            "What does swarmesh hosts add do?",
        ),
        "Type: swarmesh hosts add NAME. The queennode reaches the machine over plain SSH, so no port but SSH has to "
        "be open on it.",
    ),
    Fact(
        (
            "How do I start Swarmesh?",
            "How do I start the queennode?",
            "How do I start?",
            "How do I begin?",
            "How do I run the queen?",
            "Start the queennode",
            "How can I get started?",
            "What is the first step?",
        ),
        "Type: swarmesh queennode start. It returns when the queennode is healthy and leaves it running.",
    ),
    Fact(
        (
            "How do I stop Swarmesh?",
            "How do I stop everything?",
            "How do I stop the queennode?",
            "How do I shut down the swarm?",
            "How do I turn it off?",
        ),
        "Type: swarmesh down. It stops the queennode and leaves the rustbees. To stop everything, type: swarmesh down "
        "--all",
    ),
    Fact(
        (
            "How do I spawn a rustbee?",
            "How do I start a rustbee?",
            "How do I start a worker?",
            "How do I make a rustbee?",
            "How can I spawn a rustbee?",
            "I want another rustbee.",
            "How do I add a rustbee?",
            "How do I add a worker?",
            "Spawn a rustbee",
        ),
        "Type: swarmesh spawn rustbee --type cpu --modelcell demo. It returns when the rustbee is healthy.",
    ),
    Fact(
        (
            "Which types of rustbee are there?",
            "What types can a rustbee have?",
            "Which backends are there?",
            "Can I use my GPU?",
            "Does it work with a GPU?",
            "Does it run on a Mac?",
        ),
        "A rustbee can be of type cuda, metal, rocm, vulkan or cpu. With --type auto Swarmesh chooses.",
    ),
    Fact(
        (
            "How do I list the rustbees?",
            "How do I see my rustbees?",
            "Which rustbees are running?",
            "How do I list the workers?",
            "Show me the rustbees.",
        ),
        "Type: swarmesh rustbees list",
    ),
    Fact(
        (
            "How do I stop a rustbee?",
            "How can I stop one rustbee?",
            "How do I stop a worker?",
            "How do I remove a rustbee?",
        ),
        "Type: swarmesh rustbees stop ID. You find the ID with: swarmesh rustbees list",
    ),
    Fact(
        (
            "How do I see the waggles?",
            "How do I see the heartbeats?",
            "Is my swarm healthy?",
            "How do I check the health of the swarm?",
            "How is the swarm?",
        ),
        "Type: swarmesh waggle status. It shows how each rustbee is doing.",
    ),
    Fact(
        (
            "How do I submit a task?",
            "How do I submit a prompt?",
            "How do I send a prompt?",
            "How do I submit a nectarflow?",
            "How do I run a task?",
            "How do I ask a question from the command line?",
        ),
        'Type: swarmesh nectarflow submit --prompt "Hello". The tokens stream to your terminal.',
    ),
    Fact(
        (
            "How do I collect honeytokens?",
            "How do I collect the honeytokens?",
            "How do I get the result of a task?",
            "How do I get my tokens back?",
            "Where are my tokens?",
            "How do I read the output later?",
        ),
        "Type: swarmesh honeytokens collect --job-id ID. Add --follow to keep streaming.",
    ),
    Fact(
        (
            "How do I cancel a task?",
            "How do I cancel a nectarflow?",
            "How do I stop a task?",
            "Can I cancel a job?",
        ),
        "Type: swarmesh nectarflow cancel ID. Its slot is free at once.",
    ),
    Fact(
        (
            "How do I use a real model?",
            "How do I add a model?",
            "How do I load a bigger model?",
            "How do I use my own model?",
            "Can I use another model?",
            "How do I use qwen?",
            "How do I get better answers?",
            "Where can I get a real model?",
        ),
        "Type: swarmesh models add ./qwen.gguf --name qwen. Then type: swarmesh spawn rustbee --modelcell qwen",
    ),
    Fact(
        (
            "How do I find models on my disk?",
            "How do I scan for models?",
            "Can Swarmesh find my models?",
            "Which models do I have?",
            "I already have models.",
        ),
        "Type: swarmesh models scan. It finds the models that are already on your disk.",
    ),
    Fact(
        (
            "How do I use the OpenAI client?",
            "Does it work with OpenAI clients?",
            "How do I use the API?",
            "Is it compatible with OpenAI?",
            "How do I set the base URL?",
        ),
        "Type: swarmesh env. It prints OPENAI_BASE_URL and OPENAI_API_KEY; set both, and OpenAI clients work.",
    ),
    Fact(
        (
            "Something is wrong.",
            "It does not work.",
            "Help, it is broken!",
            "How do I find out what is wrong?",
            "How do I fix my setup?",
        ),
        "Type: swarmesh doctor. It looks for what is wrong and says what to do next.",
    ),
)

PROMISES = (
    Fact(
        ("What is this?", "What is this about?", "What is it?", "What is Swarmesh for?", "Why should I use Swarmesh?"),
        "This is Swarmesh: it turns the machines you own into one private AI swarm.",
    ),
    Fact(
        (
            "What happens when a rustbee dies?",
            "What happens if a worker dies?",
            "What if a rustbee crashes?",
            "Is my task lost when a worker dies?",
            "What happens when a rustbee dies in the middle of a stream?",
            "What happens when a machine fails?",
            "What is failover?",
        ),
        "Another rustbee takes over in the middle of the stream. The client sees one unbroken stream, and no task is "
        "lost.",
    ),
    Fact(
        (
            "What happens when the queennode dies?",
            "What if the queen crashes?",
            "What happens if the queennode restarts?",
            "Does a restart lose my tasks?",
        ),
        "The hivecomb is durable. A queennode that comes back finds its rustbees and its tasks again.",
    ),
    Fact(
        (
            "Is it private?",
            "Is Swarmesh private?",
            "Does my data leave my machines?",
            "Who can see my prompts?",
            "Do you send data to the cloud?",
            "Is there telemetry?",
        ),
        "Yes, it is private. Nothing leaves your machines, there is no telemetry, and every route asks for an API key.",
    ),
    Fact(
        (
            "Which ports must be open?",
            "Which ports do I have to open?",
            "Do I need to open a port?",
            "What about my firewall?",
            "How does the queennode reach a machine?",
        ),
        "Only SSH. The queennode reaches every rustbee over plain SSH, and no other port has to be open.",
    ),
    Fact(
        (
            "Which machines can I use?",
            "What hardware do I need?",
            "Which computers work?",
            "Can I mix different machines?",
            "Do I need a GPU?",
        ),
        "You can use Linux machines with NVIDIA or AMD GPUs, Macs, and plain CPUs, all in one swarm.",
    ),
    Fact(
        (
            "How much memory does a rustbee use?",
            "How much memory do I need?",
            "What happens when a model does not fit?",
            "What if a model is too big?",
        ),
        "As much as its modelcell needs. A model that cannot fit is refused, with the numbers in MiB.",
    ),
    Fact(
        (
            "Which priorities are there?",
            "What priorities can a task have?",
            "How does priority work?",
            "How do I make a task go first?",
        ),
        "A task has high, medium or low priority. Add --priority high, and it goes first.",
    ),
    Fact(
        (
            "How does the queennode choose a rustbee?",
            "Which rustbee gets the task?",
            "How does routing work?",
            "How is a worker picked?",
            "How are tasks balanced?",
        ),
        "Among the healthy rustbees that have the model, the queennode prefers the one with the least work.",
    ),
    Fact(
        (
            "What tasks can it run?",
            "What can Swarmesh do?",
            "Can it do more than text?",
            "Which tasks are possible?",
        ),
        "Any AI task can be a nectarflow: text, embeddings, images, speech, or a Python class of your own.",
    ),
    Fact(
        ("How do I split a hive?", "What is a hive split?", "Can a hive split?", "How does a hive grow?"),
        "Half of the rustbees leave with a new queennode and become a second hive. No task is lost.",
    ),
)

BEES = (
    Fact(("How many legs does a bee have?", "How many legs has a bee?"), "A bee has six legs."),
    Fact(("How many wings does a bee have?", "How many wings has a bee?"), "A bee has four wings."),
    Fact(("How many sides does a hexagon have?", "How many sides has a hexagon?"), "A hexagon has six sides."),
    Fact(("What do bees eat?", "What does a bee eat?"), "Bees eat nectar and pollen."),
    Fact(
        (
            "What do bees make?",
            "Where does honey come from?",
            "Who makes honey?",
            "How is honey made?",
            "What is honey?",
        ),
        "Bees make honey from the nectar of flowers.",
    ),
    Fact(
        ("Why do bees dance?", "What is the waggle dance?", "What does a dancing bee say?"),
        "A bee dances to tell her sisters where the flowers are: how far, and in which direction.",
    ),
    Fact(("Do you like honey?", "Do you like bees?", "What do you like?"), "I like bees, honey and short questions."),
)

FACTS = (*COMMANDS, *PROMISES, *BEES)

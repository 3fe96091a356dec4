"""The program that runs on another host before Swarmesh is there: looks, installs, and starts what was installed."""

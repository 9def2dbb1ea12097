"""SkyRL's command with our estimators: python -m credit.adapters.skyrl trainer... generator..."""

from credit.adapters.skyrl import main

if __name__ == "__main__":
    main()

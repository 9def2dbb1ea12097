"""Lets SkyRL's modules be imported on Python 3.11, where pydantic 2 refuses the TypedDict of `typing`."""

import sys
import typing

import typing_extensions

if sys.version_info < (3, 12):
    typing.TypedDict = typing_extensions.TypedDict

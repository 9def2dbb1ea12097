"""Triton's interpreter, in half of its time."""


def keep_the_language_patched():
    """Patches Triton's language once per module, and for good.

    The interpreter does it for every launch, and again at each call of a function by a kernel, where all
    but the first find nothing left to patch.
    """
    from triton.runtime import interpreter

    patch, patched = interpreter._patch_lang, set()

    def patch_once(function):
        module = id(function.__globals__)
        if module not in patched:
            patched.add(module)
            patch(function)
        return interpreter._LangPatchScope()  # nothing to restore

    interpreter._patch_lang = patch_once

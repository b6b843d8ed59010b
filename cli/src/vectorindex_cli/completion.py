"""Completes what is typed: decides what could stand in place of the unfinished word. Asking for names is left to the caller.

kubectl wants a candidate and its explanation on each line, and then a colon and what the shell is to do with them.
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

_FILES: Final = 0  # the directives of kubectl's own completion: the shell may offer files, ...
_NO_FILES: Final = 4  # ... or has to keep to the candidates
_OF_FILES: Final = frozenset({"kubeconfig", "vector", "to"})
_NAMED: Final = frozenset({"context", "name", "namespace", "operator_namespace", "plans", "replica"})
SHELLS: Final = ("bash", "zsh", "fish")

Look = Callable[[str, argparse.Namespace], Iterable[str]]
"""Returns the names that there are for this argument or option, given what was typed before."""


class Candidates(NamedTuple):
    """What could stand in place of the unfinished word, with explanations, and the directive."""

    words: tuple[tuple[str, str], ...]
    directive: int = _NO_FILES

    def render(self) -> str:
        """Return it as kubectl reads it."""
        lines = [f"{word}\t{text}" if text else word for word, text in self.words]
        return "\n".join([*lines, f":{self.directive}"])


def complete(words: Sequence[str], parser: argparse.ArgumentParser, look: Look) -> Candidates:
    """Return the candidates for the last of these words."""
    *before, unfinished = words or [""]
    typed, wanted = _walk(before, parser)
    if unfinished.startswith("-") and "=" in unfinished:
        name, _, value = unfinished.partition("=")
        found = _complete_value(_find_option(typed.parser, name), value, typed, look)
        return Candidates(tuple((f"{name}={word}", text) for word, text in found.words), found.directive)
    if wanted is not None:
        return _complete_value(wanted, unfinished, typed, look)
    if unfinished.startswith("-"):
        options = ((option, action.help or "") for action in typed.parser._actions for option in action.option_strings)
        return _filter(options, unfinished)
    return _complete_value(typed.next_positional(), unfinished, typed, look)


class _Typed(NamedTuple):
    """What the finished words mean."""

    parser: argparse.ArgumentParser
    values: argparse.Namespace
    positionals: int

    def next_positional(self) -> argparse.Action | None:
        places = [action for action in self.parser._actions if not action.option_strings]
        if self.positionals < len(places):
            return places[self.positionals]
        return places[-1] if places and places[-1].nargs == "+" else None


def _walk(words: Sequence[str], parser: argparse.ArgumentParser) -> tuple[_Typed, argparse.Action | None]:
    """Go through the finished words; return what they mean, and the option that still wants its value."""
    values, positionals = argparse.Namespace(), 0
    wanted: argparse.Action | None = None
    for word in words:
        if wanted is not None:
            setattr(values, wanted.dest, word)
            wanted = None
        elif word.startswith("-") and word != "-":
            name, given, value = word.partition("=")
            option = _find_option(parser, name)
            if option is not None and given:
                setattr(values, option.dest, value)
            elif option is not None and option.nargs != 0:
                wanted = option
        else:
            place = _Typed(parser, values, positionals).next_positional()
            if isinstance(place, argparse._SubParsersAction) and word in place.choices:
                parser, positionals = place.choices[word], 0
            elif place is not None:
                setattr(values, place.dest, word)
                positionals += 1
    return _Typed(parser, values, positionals), wanted


def _find_option(parser: argparse.ArgumentParser, name: str) -> argparse.Action | None:
    return next((action for action in parser._actions if name in action.option_strings), None)


def _complete_value(action: argparse.Action | None, unfinished: str, typed: _Typed, look: Look) -> Candidates:
    if action is None:
        return Candidates(())
    if isinstance(action, argparse._SubParsersAction):
        return _filter(((choice.dest, choice.help or "") for choice in action._choices_actions), unfinished)
    if action.choices:
        return _filter(((str(choice), "") for choice in action.choices), unfinished)
    if action.dest in _OF_FILES:
        return Candidates((), _FILES)
    return _filter(((name, "") for name in (look(action.dest, typed.values) if action.dest in _NAMED else ())), unfinished)


def _filter(words: Iterable[tuple[str, str]], unfinished: str) -> Candidates:
    return Candidates(tuple((word, text) for word, text in words if word.startswith(unfinished)))


SCRIPTS: Final = {  # for `vectorindex`; kubectl has its own
    "bash": r"""# completion of vectorindex for bash: source <(vectorindex completion bash)
_vectorindex() {
    local answer directive word
    answer=$(kubectl_complete-vectorindex "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null) || return
    directive=${answer##*:}
    COMPREPLY=()
    while IFS=$'\t' read -r word _; do
        [[ $word == :* || -z $word ]] || COMPREPLY+=("$word")
    done <<<"$answer"
    [[ $directive == 0 ]] && compopt -o default
}
complete -F _vectorindex vectorindex
""",
    "zsh": r"""#compdef vectorindex
# completion of vectorindex for zsh: source <(vectorindex completion zsh)
_vectorindex() {
    local -a lines candidates
    local line
    lines=("${(@f)$(kubectl_complete-vectorindex "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ ${lines[-1]} == ":0" ]]; then
        _files
        return
    fi
    for line in "${(@)lines[1,-2]}"; do
        candidates+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
    done
    _describe vectorindex candidates
}
compdef _vectorindex vectorindex
""",
    "fish": r"""# completion of vectorindex for fish: vectorindex completion fish | source
function __vectorindex_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l lines (kubectl_complete-vectorindex $words[2..] 2>/dev/null)
    if test "$lines[-1]" = ":0"
        __fish_complete_path (commandline -ct)
    else
        string match -v -r '^:\d+$' -- $lines
    end
end
complete -c vectorindex -f -a '(__vectorindex_complete)'
""",
}

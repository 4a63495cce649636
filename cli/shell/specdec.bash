# Completion for bash: source this, or install it as share/bash-completion/completions/specdec.
# The program itself says which words there are (--help=words), so this follows its version.
_specdec() {
  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} program=${COMP_WORDS[0]} at=(${COMP_WORDS[1]}) line values
  COMPREPLY=()
  if [ "$COMP_CWORD" = 1 ]; then
    COMPREPLY=($(compgen -W "$("$program" --help=words 2>/dev/null | cut -f1) help --help --version" -- "$word"))
    return
  fi
  case ${COMP_WORDS[1]} in
  data | bench | cache | key) # their first word is a part
    local parts=$("$program" --help=words 2>/dev/null | awk -F'\t' -v v="${COMP_WORDS[1]}" '$1 == v { split($2, w, " "); gsub(/\|/, " ", w[2]); print w[2] }')
    if [ "$COMP_CWORD" = 2 ]; then
      COMPREPLY=($(compgen -W "$parts" -- "$word"))
      return
    fi
    at+=(${COMP_WORDS[2]})
    ;;
  help)
    COMPREPLY=($(compgen -W "$("$program" --help=words 2>/dev/null | cut -f1)" -- "$word"))
    return
    ;;
  esac
  values=$("$program" "${at[@]}" --help=words 2>/dev/null | awk -F'\t' -v o="$before" '$1 == o { print $2 }')
  if [[ $values == *'|'* ]]; then
    COMPREPLY=($(compgen -W "${values//|/ }" -- "$word"))
  elif [[ $word == -* ]]; then
    COMPREPLY=($(compgen -W "$("$program" "${at[@]}" --help=words 2>/dev/null | cut -f1) --help" -- "$word"))
  else
    COMPREPLY=($(compgen -f -- "$word"))
  fi
}
complete -o filenames -F _specdec specdec

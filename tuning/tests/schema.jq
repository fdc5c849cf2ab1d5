# Checks a document against the part of JSON Schema that schema/ uses. Prints a line for each fault, nothing if
# there is none.
def kind: if type == "number" and . == floor then "integer" else type end;

def faults($root; $schema; $path):
    if $schema["$ref"] then
        faults($root; $root["$defs"][$schema["$ref"] | ltrimstr("#/$defs/")]; $path)
    else
        . as $value
        | kind as $kind
        | ([$schema.type // empty] | flatten) as $types
        | (if ($types | length) > 0 and ($types | index($kind) | not) and ($kind != "integer" or ($types | index("number") | not))
            then "\($path): is \($kind), not \($types | join(" or "))" else empty end),
          (if $schema.enum and ($schema.enum | index([$value]) | not)
            then "\($path): \($value) is none of \($schema.enum)" else empty end),
          (if $schema.pattern and $kind == "string" and ($value | test($schema.pattern) | not)
            then "\($path): \($value) does not match \($schema.pattern)" else empty end),
          (if $kind == "object" then
              (($schema.required // [])[] | select(in($value) | not) | "\($path).\(.): is missing"),
              (($value | keys)[] as $key
                | if $schema.properties[$key] then $value[$key] | faults($root; $schema.properties[$key]; "\($path).\($key)")
                  elif $schema.additionalProperties == false then "\($path).\($key): is not in the schema"
                  else empty end)
            else empty end),
          (if $schema.oneOf then
              ([$schema.oneOf[] as $one | [$value | faults($root; $one; $path)] | select(length == 0)] | length) as $fits
              | if $fits == 1 then empty else "\($path): fits \($fits) of its kinds, not one" end
            else empty end),
          (if $kind == "array" and $schema.items then
              ($value | to_entries[] | .key as $index | .value | faults($root; $schema.items; "\($path)[\($index)]"))
            else empty end)
    end;

# The kind that was asked for, and the document as a whole.
$schema[0] as $root | faults($root; $root["$defs"][$command]; "$"), faults($root; $root; "$")

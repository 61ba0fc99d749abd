# Sums up callgrind's file by function, with inlined functions as part of it: share, instructions per
# item (variable `items`), name. Names are written in full where they occur first.
function id(text,   at) { at = index(text, ")"); return substr(text, 1, at) }
function named(text,   at) { at = index(text, ")"); if (length(text) > at) name[id(text)] = substr(text, at + 2) }
/^fn=/ { sub(/^fn=/, ""); named($0); f = id($0); next }
/^cfn=/ { sub(/^cfn=/, ""); named($0); next }
/^calls=/ { getline; next }
/^[-+*0-9]/ { cost[f] += $2; all += $2 }
END { for (f in cost) if (cost[f] * 100 > all) printf "%5.1f %% %8d  %s\n", cost[f] * 100 / all, cost[f] / items, name[f] }

# date,close -> date,log return
NR == 1 { print "date,return"; next }
NR > 2 { printf "%s,%.6f\n", $1, log($2 / last) }
{ last = $2 }

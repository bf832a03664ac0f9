# date,return -> date,annualised volatility over the last `window` days
NR == 1 { print "date,volatility"; next }
{
  i = NR % window
  sum += $2 - x[i]
  squares += $2 * $2 - x[i] * x[i]
  x[i] = $2
}
NR > window {
  variance = squares / window - (sum / window) ^ 2
  printf "%s,%.4f\n", $1, sqrt(variance > 0 ? variance * 252 : 0)
}

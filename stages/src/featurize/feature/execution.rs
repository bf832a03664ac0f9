//! Closed forms about executions, for whoever judges fills: spread paid, markout, and the schedule
//! of Almgren and Chriss. None of them is a feature: a markout looks ahead.

/// Twice the distance from the mid before the trade, in the unit of the price; `side` 1 for a buyer
/// and -1 for a seller.
pub fn effective_spread(side: f64, price: f64, mid_before: f64) -> f64 {
    2.0 * side * (price - mid_before)
}

/// How far the mid went the taker's way, from before the trade to later, in basis points.
pub fn markout_bps(side: f64, mid_before: f64, mid_later: f64) -> f64 {
    1e4 * side * (mid_later - mid_before) / mid_before
}

/// The optimal execution of Almgren and Chriss (2000), section 2 and appendix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AlmgrenChriss {
    /// Units to sell.
    pub units: f64,
    /// Time for it, in days.
    pub horizon: f64,
    /// Trades.
    pub steps: usize,
    /// Temporary impact: price a unit a day.
    pub eta: f64,
    /// Permanent impact: price a unit.
    pub gamma: f64,
    /// Risk aversion, 1 / money.
    pub lambda: f64,
    /// Volatility, price by the root of a day.
    pub sigma: f64,
}

impl AlmgrenChriss {
    /// The urgency kappa, by day: cosh(kappa tau) = 1 + kappa~^2 tau^2 / 2, with kappa~^2 =
    /// lambda sigma^2 / eta~ and eta~ = eta - gamma tau / 2.
    pub fn kappa(&self) -> f64 {
        let tau = self.horizon / self.steps as f64;
        let eta = self.eta - self.gamma * tau / 2.0;
        let squared = self.lambda * self.sigma * self.sigma / eta;
        (1.0 + squared * tau * tau / 2.0).acosh() / tau
    }

    /// Units still held after each step, from the beginning on: `steps` + 1 of them.
    pub fn holdings(&self) -> Vec<f64> {
        let (kappa, tau) = (self.kappa(), self.horizon / self.steps as f64);
        let whole = (kappa * self.horizon).sinh();
        let held = |step: usize| {
            let left = self.horizon - step as f64 * tau;
            self.units
                * if whole > 0.0 { (kappa * left).sinh() / whole } else { left / self.horizon }
        };
        (0..=self.steps).map(held).collect()
    }
}

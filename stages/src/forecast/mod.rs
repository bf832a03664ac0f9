//! Forecast models on the features and splits of `featurize`.

#[cfg(feature = "models")]
pub mod neural;
pub mod series;

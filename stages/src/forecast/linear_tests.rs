//! Linear models against scikit-learn, and against what can be said in closed form.

use super::super::fit::class_weights;
use super::super::params::ClassWeights;
use super::super::series::Slice;
use super::*;

/// Sixty rows of three features without a file: the same numbers as in the reference.
fn series() -> Series {
    let (mut x, mut targets) = (Vec::new(), Vec::new());
    for i in 0..60 {
        let i = f64::from(i);
        let row = [(1.7 * i + 0.3).sin(), ((0.9 * i * i) % 7.0).cos(), (0.31 * i).sin() * 1.5]
            .map(|x| x as f32);
        let value = 0.8 * f64::from(row[0]) - 0.5 * f64::from(row[2]) + (5.1 * i).sin();
        let class = if value > 0.43 { 2 } else { u8::from(value >= -0.43) };
        targets.push(Some(Target { class, value: value as f32 }));
        x.extend(row);
    }
    Series { name: String::new(), features: 3, x, dt: vec![1.0; 60], targets, horizons: 1 }
}

fn with<T>(series: &Series, act: impl FnOnce(&Data) -> T) -> T {
    let rows = 0..series.rows();
    let train = [Slice { series, rows, counts: vec![true; series.rows()] }];
    let weights = class_weights(ClassWeights::Balanced, &train, 1);
    act(&Data { train: &train, valid: &[], class_weights: &weights, flat: 0.43 })
}

fn close(ours: &[f64], theirs: &[f64], tolerance: f64) {
    assert_eq!(ours.len(), theirs.len());
    for (a, b) in ours.iter().zip(theirs) {
        assert!((a - b).abs() < tolerance, "{ours:?}, not {theirs:?}");
    }
}

/// scikit-learn 1.9: `LogisticRegression(C=1 / (0.02 sum w), tol=1e-12)` with balanced weights w.
#[test]
fn logit_agrees_with_the_reference() {
    let series = series();
    let logit = with(&series, |data| logit(&Logit { l2: 0.02 }, data, &mut |_| Ok(()))).unwrap();
    #[rustfmt::skip]
    let expected = [
        -1.1314086248008548, 0.14751317385568763, 0.7043387371898879, -0.07511674056864329,
        0.13059572528710825, -0.0815878917684005, 0.040728899000029815, 0.2608590887140207,
        1.0008128995137473, -0.065925282087287, -0.745067636189918, -0.18574234814537652,
    ];
    close(&logit.weights[0], &expected, 1e-5);
    let forecasts = logit.predict(&series, 0..2).unwrap();
    let p: Vec<f64> = forecasts.iter().flat_map(|f| f.p.map(f64::from)).collect();
    close(
        &p,
        &[
            0.2516458542038288,
            0.4066062696229641,
            0.3417478761732071,
            0.15084138751036244,
            0.4256726409644911,
            0.4234859715251465,
        ],
        1e-6,
    );
}

/// scikit-learn 1.9: `Ridge(alpha=60 * 0.1)`.
#[test]
fn ridge_agrees_with_the_reference() {
    let series = series();
    let line = with(&series, |data| ridge(&Ridge { l2: 0.1 }, data, &mut |_| Ok(()))).unwrap();
    close(
        &line.weights[0],
        &[0.6888625912095793, -0.029952821863816804, -0.46357085662237396, -0.00444838975936374],
        1e-9,
    );
}

/// Of one feature of mean 0 the slope is sum xy / (sum x^2 + n l2) and the intercept the mean of y.
#[test]
fn ridge_of_one_feature_is_as_on_paper() {
    let x: Vec<f32> = vec![-2.0, -1.0, 0.0, 1.0, 2.0];
    let y = [-1.0f32, 0.5, 0.25, 0.75, 2.0];
    let targets = y.iter().map(|&value| Some(Target { class: 1, value })).collect();
    let series =
        Series { name: String::new(), features: 1, x, dt: vec![1.0; 5], targets, horizons: 1 };
    let line = with(&series, |data| ridge(&Ridge { l2: 0.5 }, data, &mut |_| Ok(()))).unwrap();
    close(&line.weights[0], &[6.25 / (10.0 + 2.5), 0.5], 1e-14);
}

/// Where features say nothing, the logit of equal weights gives each class its share.
#[test]
fn logit_without_features_gives_the_shares() {
    let targets: Vec<Option<Target>> = (0..10)
        .map(|i| Some(Target { class: [0, 1, 1, 2, 2, 2, 2, 2, 2, 2][i], value: 0.0 }))
        .collect();
    let series = Series {
        name: String::new(),
        features: 1,
        x: vec![0.0; 10],
        dt: vec![1.0; 10],
        targets,
        horizons: 1,
    };
    let train = [Slice { series: &series, rows: 0..10, counts: vec![true; 10] }];
    let weights = class_weights(ClassWeights::Equal, &train, 1);
    let data = Data { train: &train, valid: &[], class_weights: &weights, flat: 0.43 };
    let logit = logit(&Logit::default(), &data, &mut |_| Ok(())).unwrap();
    let p = logit.predict(&series, 0..1).unwrap()[0].p.map(f64::from);
    close(&p, &[0.1, 0.2, 0.7], 1e-6);
}

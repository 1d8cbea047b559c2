from shop.extract.rates import fetch_rates


def test_every_rate_is_positive():
    assert all(rate > 0 for rate in fetch_rates().values())

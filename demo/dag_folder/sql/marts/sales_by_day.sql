select date(placed_at) as day, count(*) as orders, sum(total) as revenue
from staging.orders
group by 1;

select c.country, sum(o.total) as revenue
from staging.orders o join staging.customers c on c.id = o.customer
group by 1;

select * from marts.sales_by_day where day between '2025-07-01' and '2025-09-30';

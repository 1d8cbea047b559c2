create table if not exists staging.orders (
    id bigint primary key, customer bigint, placed_at timestamp, total numeric(12, 2)
);

"""The business of each service: routes, their ordinary work and its ordinary variance."""

import hashlib
import os
import random
import sqlite3
import threading
import time

PRODUCTS = 60
CURRENCIES = ("EUR", "USD", "JPY", "SEK")


def pause(milliseconds, spread=0.35):
    """Waiting that belongs to the work; a logarithmic normal distribution around its median."""
    time.sleep(milliseconds / 1000 * random.lognormvariate(0, spread))


def compute(rounds):
    value = b"shop"
    for _ in range(rounds):
        value = hashlib.sha256(value).digest()
    return value.hex()


class Database:
    """Tables in one file. A write holds the lock until it is on the disk."""

    def __init__(self, app):
        path = app.folder / "data" / app.name / "shop.sqlite"
        self.lock = threading.Lock()
        self.file = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self.file.execute("PRAGMA synchronous = FULL")
        self.file.execute("CREATE TABLE IF NOT EXISTS product (id INTEGER PRIMARY KEY, text)")
        self.file.execute("CREATE TABLE IF NOT EXISTS stock (id INTEGER PRIMARY KEY, left INTEGER)")
        self.file.execute("CREATE TABLE IF NOT EXISTS sale (id INTEGER PRIMARY KEY, text)")
        for number in range(PRODUCTS):
            row = (number, f"product {number} " + "of the shop " * 12)
            self.file.execute("INSERT OR IGNORE INTO product VALUES (?, ?)", row)
            self.file.execute("INSERT OR IGNORE INTO stock VALUES (?, 1000000)", (number,))

    def query(self, statement, arguments=()):
        with self.lock:
            return self.file.execute(statement, arguments).fetchall()


class Journal:
    """Records in a file that are on the disk before the answer; it begins anew at 1 MiB."""

    # Padded: every eighth record needs a new page, so that a full disk is noticed soon.
    RECORD_BYTES = 512

    def __init__(self, app):
        self.path = app.folder / "data" / app.name / "journal"

    def append(self, text):
        with open(self.path, "a") as file:
            file.write(text.ljust(self.RECORD_BYTES - 1) + "\n")
            file.flush()
            os.fsync(file.fileno())
            if file.tell() > 1 << 20:
                file.truncate(0)


STORES = {"database": Database, "cart": Journal, "inventory": Journal, "mail": Journal}


def database_product(app, number, _):
    rows = app.store.query("SELECT id, text FROM product WHERE id = ?", (number,))
    if not rows:
        raise app.refuse(404, "no such row")
    return {"id": rows[0][0], "text": rows[0][1]}


def database_products(app, _):
    rows = app.store.query("SELECT id, text FROM product ORDER BY id LIMIT 20")
    return {"products": [{"id": row[0], "text": row[1]} for row in rows]}


def database_stock(app, number, _):
    app.store.query("UPDATE stock SET left = left - 1 WHERE id = ?", (number,))
    rows = app.store.query("SELECT left FROM stock WHERE id = ?", (number,))
    return {"left": rows[0][0]}


def database_sale(app, body):
    app.store.query("INSERT INTO sale (text) VALUES (?)", (str(body),))
    app.store.query("DELETE FROM sale WHERE id < (SELECT max(id) FROM sale) - 500")
    return {"stored": True}


class Cache:
    """Rows that the catalog keeps for up to half a minute."""

    rows = {}

    @classmethod
    def get(cls, number):
        kept = cls.rows.get(number)
        return kept[1] if kept and time.monotonic() < kept[0] else None

    @classmethod
    def put(cls, number, row):
        cls.rows[number] = (time.monotonic() + random.uniform(5, 30), row)


def catalog_product(app, number, _):
    row = Cache.get(number)
    if row is None:
        row = app.call("database", "GET", f"/product/{number}")
        if "text" not in row:
            app.log.warning("product %s isn't in the database", number)
            raise app.refuse(404, "no such product")
        Cache.put(number, row)
    pause(2)
    return {**row, "price": 500 + 37 * int(number), "currency": "EUR"}


def catalog_list(app, _):
    rows = app.call("database", "GET", "/products")["products"]
    pause(3)
    app.log.info("listed %d products", len(rows))
    return {"products": rows}


def recommendation_list(app, number, _):
    pause(4)
    compute(200)
    chosen = random.sample(range(PRODUCTS), 2)
    return {"products": [app.call("catalog", "GET", f"/product/{n}") for n in chosen]}


def cart_add(app, user, body):
    product = app.call("catalog", "GET", f"/product/{body['product']}")
    if product.get("price", 0) <= 0:
        raise ValueError(f"product {body['product']} has no price")
    app.store.append(f"{user} {product['id']} {product['price']}")
    app.log.info("user %s added product %s", user, body["product"])
    return {"items": 1 + random.randrange(3)}


def cart_show(app, user, _):
    pause(2)
    items = [random.randrange(PRODUCTS) for _ in range(1 + int(user) % 2)]
    return {"items": [{"product": n, "price": 500 + 37 * n} for n in items]}


def currency_convert(app, body):
    pause(1)
    if body["to"] not in CURRENCIES:
        raise app.refuse(400, "no such currency")
    return {"amount": body["amount"] * (90 + len(body["to"])) // 100, "rate": compute(100)[:6]}


def payment_charge(app, body):
    pause(25, 0.3)
    if random.random() < 0.01:
        app.log.warning("card of user %s was declined", body["user"])
        raise app.refuse(402, "declined")
    app.log.info("charged %d for user %s", body["amount"], body["user"])
    return {"charge": compute(50)[:12], "amount": body["amount"]}


def inventory_reserve(app, body):
    left = [app.call("database", "POST", f"/stock/{n}", {})["left"] for n in body["products"]]
    app.store.append(" ".join(map(str, body["products"])))
    if min(left) < 1000:
        app.log.warning("stock of %s is low", body["products"])
    return {"reserved": True, "left": left}


def shipping_order(app, body):
    quote = app.call("quote", "POST", "/quote", {"items": body["items"]})
    if quote.get("cost", 0) <= 0:
        raise ValueError(f"quote without a cost: {quote}")
    pause(8)
    app.log.info("parcel for user %s costs %d", body["user"], quote["cost"])
    return {"parcel": compute(50)[:10], "cost": quote["cost"]}


def quote_quote(app, body):
    pause(5)
    return {"cost": 300 + 120 * body["items"], "table": compute(300)[:8]}


def mail_send(app, body):
    pause(3)
    app.store.append(f"to {body['user']}: {body['text']}")
    app.log.info("mail to user %s is queued", body["user"])
    return {"queued": True}


def checkout_order(app, body):
    user = body["user"]
    items = app.call("cart", "GET", f"/cart/{user}")["items"]
    products = [item["product"] for item in items]
    if not app.call("inventory", "POST", "/reserve", {"products": products})["reserved"]:
        raise RuntimeError(f"products {products} of user {user} could not be reserved")
    amount = sum(item["price"] for item in items)
    wanted = {"amount": amount, "to": body["currency"]}
    amount = app.call("currency", "POST", "/convert", wanted)["amount"]
    charge = app.call("payment", "POST", "/charge", {"user": user, "amount": amount})
    if "error" in charge:
        raise app.refuse(402, "declined")
    if charge["amount"] != amount:
        raise RuntimeError(f"charged {charge['amount']} rather than {amount}")
    parcel = app.call("shipping", "POST", "/order", {"user": user, "items": len(items)})
    app.call("database", "POST", "/sale", {"user": user, "charge": charge["charge"]})
    try:
        app.call("mail", "POST", "/send", {"user": user, "text": f"parcel {parcel['parcel']}"})
    except Exception as error:
        app.log.warning("no confirmation for user %s: %s", user, error)
    app.log.info("order of user %s: %d items", user, len(items))
    return {"parcel": parcel["parcel"], "amount": amount}


def frontend_home(app, _):
    products = app.call("catalog", "GET", "/products")["products"]
    pause(3)
    return {"page": "home", "products": len(products)}


def frontend_product(app, number, _):
    product = app.call("catalog", "GET", f"/product/{number}")
    if "text" not in product:
        app.log.warning("product %s was not found", number)
        raise app.refuse(404, "no such product")
    price = {"amount": product["price"], "to": random.choice(CURRENCIES)}
    price = app.call("currency", "POST", "/convert", price)
    try:
        also = app.call("recommendation", "GET", f"/recommend/{number}")["products"]
    except Exception as error:
        app.log.warning("page of product %s without recommendations: %s", number, error)
        also = []
    return {"page": product["text"], "price": price["amount"], "also": len(also)}


def frontend_add(app, user, body):
    answer = app.call("cart", "POST", f"/cart/{user}", {"product": body["product"]})
    return {"page": "cart", "items": answer["items"]}


def frontend_cart(app, user, _):
    items = app.call("cart", "GET", f"/cart/{user}")["items"]
    return {"page": "cart", "items": len(items)}


def frontend_checkout(app, user, _):
    order = {"user": user, "currency": random.choice(CURRENCIES)}
    answer = app.call("checkout", "POST", "/order", order)
    if "error" in answer:
        raise app.refuse(402, "declined")
    return {"page": "thanks", "parcel": answer["parcel"]}


ROUTES = {
    "frontend": {
        ("GET", "/"): frontend_home,
        ("GET", "/product/{id}"): frontend_product,
        ("POST", "/cart/{user}"): frontend_add,
        ("GET", "/cart/{user}"): frontend_cart,
        ("POST", "/checkout/{user}"): frontend_checkout,
    },
    "catalog": {("GET", "/product/{id}"): catalog_product, ("GET", "/products"): catalog_list},
    "recommendation": {("GET", "/recommend/{id}"): recommendation_list},
    "cart": {("POST", "/cart/{user}"): cart_add, ("GET", "/cart/{user}"): cart_show},
    "currency": {("POST", "/convert"): currency_convert},
    "checkout": {("POST", "/order"): checkout_order},
    "payment": {("POST", "/charge"): payment_charge},
    "inventory": {("POST", "/reserve"): inventory_reserve},
    "shipping": {("POST", "/order"): shipping_order},
    "quote": {("POST", "/quote"): quote_quote},
    "mail": {("POST", "/send"): mail_send},
    "database": {
        ("GET", "/product/{id}"): database_product,
        ("GET", "/products"): database_products,
        ("POST", "/stock/{id}"): database_stock,
        ("POST", "/sale"): database_sale,
    },
}

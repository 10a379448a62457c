"""The seed's own `EDIDatabase`, as its document has it, to build the databases that people may still have."""

import sqlite3


class EDIDatabase:
    def __init__(self, db_path: str = "edi_sessions.db"):
        self.db_path = db_path
        self.init_db()

    def init_db(self):
        """Initialize the database with required tables."""
        conn = sqlite3.connect(self.db_path)
        cursor = conn.cursor()

        # Sessions table
        cursor.execute("""
            CREATE TABLE IF NOT EXISTS sessions (
                id TEXT PRIMARY KEY,
                created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
                image_path TEXT NOT NULL,
                naive_prompt TEXT NOT NULL,
                status TEXT CHECK(status IN ('in_progress', 'completed', 'failed')),
                final_alignment_score REAL
            )
        """)

        # Prompts table
        cursor.execute("""
            CREATE TABLE IF NOT EXISTS prompts (
                id INTEGER PRIMARY KEY AUTOINCREMENT,
                session_id TEXT REFERENCES sessions(id),
                iteration INT,
                positive_prompt TEXT,
                negative_prompt TEXT,
                quality_score REAL,
                created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
            )
        """)

        # Entities table
        cursor.execute("""
            CREATE TABLE IF NOT EXISTS entities (
                id INTEGER PRIMARY KEY AUTOINCREMENT,
                session_id TEXT REFERENCES sessions(id),
                entity_id TEXT,
                label TEXT,
                confidence REAL,
                bbox_json TEXT,
                mask_path TEXT,
                color_hex TEXT,
                area_percent REAL
            )
        """)

        # Validations table
        cursor.execute("""
            CREATE TABLE IF NOT EXISTS validations (
                id INTEGER PRIMARY KEY AUTOINCREMENT,
                session_id TEXT REFERENCES sessions(id),
                attempt_number INT,
                alignment_score REAL,
                preserved_count INT,
                modified_count INT,
                unintended_count INT,
                user_feedback TEXT,
                created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
            )
        """)

        # User feedback table
        cursor.execute("""
            CREATE TABLE IF NOT EXISTS user_feedback (
                id INTEGER PRIMARY KEY AUTOINCREMENT,
                session_id TEXT REFERENCES sessions(id),
                feedback_type TEXT CHECK(feedback_type IN ('accept', 'reject', 'partial')),
                comments TEXT,
                rating INT CHECK(rating BETWEEN 1 AND 5),
                created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
            )
        """)

        conn.commit()
        conn.close()

    def save_session(self, session_data: dict) -> str:
        """Save a session to the database."""
        conn = sqlite3.connect(self.db_path)
        cursor = conn.cursor()

        cursor.execute(
            """
            INSERT INTO sessions (id, image_path, naive_prompt, status, final_alignment_score)
            VALUES (?, ?, ?, ?, ?)
        """,
            (
                session_data["id"],
                session_data["image_path"],
                session_data["naive_prompt"],
                session_data["status"],
                session_data.get("final_alignment_score"),
            ),
        )

        conn.commit()
        conn.close()
        return session_data["id"]

    def get_session(self, session_id: str) -> dict | None:
        """Retrieve a session from the database."""
        conn = sqlite3.connect(self.db_path)
        conn.row_factory = sqlite3.Row  # This enables column access by name
        cursor = conn.cursor()

        cursor.execute("SELECT * FROM sessions WHERE id = ?", (session_id,))
        row = cursor.fetchone()

        if row:
            session = dict(row)
            conn.close()
            return session

        conn.close()
        return None

    def save_prompt_history(self, session_id: str, prompts: list[dict]):
        """Save prompt history for a session."""
        conn = sqlite3.connect(self.db_path)
        cursor = conn.cursor()

        for prompt in prompts:
            cursor.execute(
                """
                INSERT INTO prompts (session_id, iteration, positive_prompt, negative_prompt, quality_score)
                VALUES (?, ?, ?, ?, ?)
            """,
                (
                    session_id,
                    prompt["iteration"],
                    prompt["positive_prompt"],
                    prompt["negative_prompt"],
                    prompt.get("quality_score"),
                ),
            )

        conn.commit()
        conn.close()

    def get_prompt_history(self, session_id: str) -> list[dict]:
        """Retrieve prompt history for a session."""
        conn = sqlite3.connect(self.db_path)
        conn.row_factory = sqlite3.Row
        cursor = conn.cursor()

        cursor.execute(
            """
            SELECT iteration, positive_prompt, negative_prompt, quality_score, created_at
            FROM prompts
            WHERE session_id = ?
            ORDER BY iteration
        """,
            (session_id,),
        )

        rows = cursor.fetchall()
        prompts = [dict(row) for row in rows]

        conn.close()
        return prompts


def build(path: str, sessions: int = 3) -> None:
    """A seed database with `sessions` sound sessions, s-0, s-1, ..., and rows of each in every table."""
    database = EDIDatabase(path)
    for number in range(sessions):
        session_id = f"s-{number}"
        database.save_session(
            {
                "id": session_id,
                "image_path": f"/photos/{number}.jpg",
                "naive_prompt": "make the sky dramatic, größer \U0001f308",
                "status": ("in_progress", "completed", "failed")[number % 3],
                "final_alignment_score": 0.87,
            }
        )
        database.save_prompt_history(
            session_id,
            [
                {"iteration": 0, "positive_prompt": "storm clouds", "negative_prompt": "", "quality_score": 0.85},
                {"iteration": 1, "positive_prompt": "dark storm clouds", "negative_prompt": "blue sky"},
            ],
        )
    execute(
        path,
        "INSERT INTO entities (session_id, entity_id, label, confidence, bbox_json, mask_path, color_hex, area_percent)"
        " SELECT id, 'sky_0', 'sky', 0.95, '[0, 0, 640, 200]', 'masks/sky_0.png', '#87CEEB', 41.5 FROM sessions",
        "INSERT INTO validations (session_id, attempt_number, alignment_score, preserved_count, modified_count,"
        " unintended_count, user_feedback) SELECT id, 1, 0.9, 3, 1, 0, NULL FROM sessions",
        "INSERT INTO user_feedback (session_id, feedback_type, comments, rating)"
        " SELECT id, 'accept', 'lovely', 5 FROM sessions",
    )


def execute(path: str, *statements: str) -> None:
    """What somebody may have done to such a database by hand."""
    conn = sqlite3.connect(path)
    for statement in statements:
        conn.execute(statement)
    conn.commit()
    conn.close()


def rows(path: str, table: str) -> list[dict]:
    """All rows of a table, as the file has them; text that is not UTF-8 with its bytes escaped."""
    conn = sqlite3.connect(path)
    conn.text_factory = lambda value: value.decode(errors="surrogateescape")
    conn.row_factory = sqlite3.Row
    found = [dict(row) for row in conn.execute(f"SELECT * FROM {table}")]
    conn.close()
    return found

-- What a store of version 2 had beside that of version 1.

INSERT INTO signatures VALUES ('01a2148c-9ef2-717a-b158-f155e26a6226', 0, 1, X'0102');

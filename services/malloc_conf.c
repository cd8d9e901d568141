/* What jemalloc is told in the programs that drive load: huge pages wherever there are any, and freed memory kept for ten seconds.
   What they hold for each key and connection is reached in no order, so with pages of 4 KiB each step begins with a search for the
   page. Unlike a node they are not asked how little they can do with. */
const char *_rjem_malloc_conf = "thp:always,metadata_thp:always,dirty_decay_ms:10000";

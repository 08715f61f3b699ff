"""What the operator's browser and monitoring see of the daemon: the page, /metrics, /livez and /readyz.

Lives in the attendant, in its loop, and asks the desk (control/desk.py); the path of a message never waits for it.

| file          | what                                                                                        |
|---------------|---------------------------------------------------------------------------------------------|
| observed.py   | everything that is shown, read once for all who look at the same moment                     |
| exposition.py | the same as the text that Prometheus reads: the table of metrics                             |
| health.py     | /livez and /readyz: what is wrong, in words                                                  |
| minutes.py    | what was counted in each minute of the last day, for the chart                               |
| messages.py   | the last messages and the life of one, from the history                                     |
| feed.py       | a companion that looks every two seconds and tells open pages                                |
| site.py       | the addresses: who may ask what                                                              |
| page/         | the page itself: HTML, style and modules of plain JavaScript, without a build step           |

Whatever came from the network travels to the page as JSON and is put there as text, never as HTML.
"""
